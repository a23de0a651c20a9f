"""impala-train says what there is and what it would do, and starts nothing.

Written to find: settings of --dry-run that --config does not take back, old versions of
environments listed, an environment's package that is missing listed as installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from impala_actor import environment_list
from impala_common.config.cli import parse_train_config
from impala_common.config.presets import PRESETS
from impala_common.config.toml_io import load_config
from impala_common.errors import ConfigError
from impala_common.process import exit_codes
from impala_server.train_cli import run

pytestmark = pytest.mark.timeout(120)


def test_environment_may_be_the_first_word() -> None:
    first = parse_train_config("p", ["CartPole-v1", "--seed", "7"], "")
    option = parse_train_config("p", ["--env", "CartPole-v1", "--seed", "7"], "")

    assert first == option
    assert first.preset == "cartpole"
    with pytest.raises(ConfigError, match="ENV is 'CartPole-v1' but must be given once"):
        parse_train_config("p", ["CartPole-v1", "--env", "Acrobot-v1"], "")


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--list-presets"]) == exit_codes.OK

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert "CartPole-*" in lines[0]
    assert "100,000 steps" in lines[0]


@pytest.mark.parametrize("arguments", [["--list-envs", "cartpole"], ["--list-envs=Cart*-v1"]])
def test_environments_are_listed_with_their_preset(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == exit_codes.OK

    assert capsys.readouterr().out.split() == ["CartPole-v1", "preset", "cartpole"]


def test_environment_whose_package_is_missing_is_not_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    can_import = environment_list._can_import
    monkeypatch.setattr(
        environment_list, "_can_import", lambda name: "toy_text" not in name and can_import(name)
    )

    names = [env for env, _preset in environment_list.list_environments()]

    assert "CartPole-v1" in names
    assert "FrozenLake-v1" not in names
    assert len({name.rpartition("-v")[0] for name in names}) == len(names)


@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_dry_run_shows_sizes_and_settings_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recurrence: str
) -> None:
    folder = tmp_path / "run"
    options = ["CartPole-v1", "--seed", "7", "--recurrence", recurrence, "--eval-interval-steps"]

    assert run([*options, "5000", "--run-dir", str(folder), "--dry-run"]) == exit_codes.OK

    shown = capsys.readouterr().out
    (tmp_path / "mine.toml").write_text(shown)
    config = load_config(tmp_path / "mine.toml")
    assert (config.job.seed, config.model.recurrence) == (7, recurrence)
    assert config.environment.env == "CartPole-v1"
    for text in (
        str(folder), "environment slots each", "an evaluator, every 5,000 steps", "T = 32",
        "observation float32 [4]; action categorical [2]", "parameters", "2 batches", "MiB",
    ):  # fmt: skip
        assert text in shown
    assert not folder.exists()


def test_dry_run_of_an_unknown_environment_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["Cartpole-v1", "--dry-run"]) == exit_codes.CONFIG
    assert "CartPole-v1" in capsys.readouterr().err
