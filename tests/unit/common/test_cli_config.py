"""The command line: priority of sources, aliases, and helpful errors."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from impala_common.config import TrainConfig
from impala_common.config.cli import TrainArguments, parse_train_config
from impala_common.config.presets import PRESETS, make_preset
from impala_common.config.toml_io import dump_config
from impala_common.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """Options of this command only."""

    drain_s: float = 25.0
    """Seconds to drain."""


def parse(*argv: str | Path) -> TrainArguments:
    return parse_train_config("impala-x", [str(word) for word in argv], "Trains.", ServeOptions)


def test_no_options_are_the_generic_preset() -> None:
    arguments = parse()

    assert arguments == TrainArguments(
        config=make_preset("generic"),
        preset="generic",
        run_dir=None,
        resume=None,
        json=False,
        quiet=False,
        verbose=False,
        extra=ServeOptions(),
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_chosen_by_its_name(name: str) -> None:
    """Seen to fail with a list of names of its own in the command line's code."""
    assert parse("--env", "CartPole-v1", "--preset", name).preset == name


def test_options_win_over_file_and_file_over_preset(tmp_path: Path) -> None:
    """Seen to fail with tyro's defaults taken from the preset instead of the file."""
    path = tmp_path / "c.toml"
    path.write_text("[loss]\ndiscount = 0.5\nentropy_cost = 0.5\n")

    config = parse("--preset", "cartpole", "--config", path, "--discount", "0.25").config

    preset = make_preset("cartpole")
    expected = dataclasses.replace(preset.loss, discount=0.25, entropy_cost=0.5)
    assert config == dataclasses.replace(preset, loss=expected)


def test_environment_of_file_chooses_the_preset_and_option_wins(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[environment]\nenv = "MinAtar/Breakout-v1"\n')

    from_file = parse("--config", path)
    from_option = parse("--config", path, "--env", "ALE/Pong-v5")
    named = parse("--config", path, "--env=ALE/Pong-v5", "--preset=cartpole")

    assert (from_file.preset, from_option.preset, named.preset) == ("minatar", "atari", "cartpole")
    assert from_file.config.environment.env == "MinAtar/Breakout-v1"
    assert from_option.config.environment.env == "ALE/Pong-v5"
    assert named.config.model == make_preset("cartpole").model


@pytest.mark.parametrize("spelling", [["--run-dir", "x"], ["--run-dir=x"], ["--run_dir", "x"]])
def test_spellings_of_an_option_are_the_same(spelling: list[str]) -> None:
    assert parse(*spelling).run_dir == Path("x")


@pytest.mark.parametrize(
    ("option", "value", "section", "name", "expected"),
    [
        ("--lr", "3e-3", "optimizer", "learning_rate", 3e-3),
        ("--learning-rate", "3e-3", "optimizer", "learning_rate", 3e-3),
        ("--num-steps", "7", "rollout", "unroll_length", 7),
        ("--unroll_length", "7", "rollout", "unroll_length", 7),
        ("--ent-coef", "0", "loss", "entropy_cost", 0.0),
        ("--baseline-coef", "1", "loss", "baseline_cost", 1.0),
        ("--num-train-steps", "1_000", "job", "total_steps", 1000),
        ("--init-fn", "xavier_normal", "model", "init_method", "xavier_normal"),
        ("--network-init-method", "identity", "model", "init_method", "identity"),
        ("--clip-rho-threshold", "none", "loss", "clip_rho_threshold", None),
        ("--clip-rho-threshold", "None", "loss", "clip_rho_threshold", None),
        ("--clip-rho-threshold", "2", "loss", "clip_rho_threshold", 2.0),
        ("--reward-clipping", "none", "loss", "reward_clipping", "none"),
        ("--hidden-sizes", "128", "model", "hidden_sizes", (128,)),
        ("--env", "-odd-", "environment", "env", "-odd-"),
    ],
)
def test_option_sets_its_field(
    option: str, value: str, section: str, name: str, expected: object
) -> None:
    words = [f"{option}={value}"] if value.startswith("-") else [option, value]

    config = parse(*words).config

    assert getattr(getattr(config, section), name) == expected
    assert type(getattr(getattr(config, section), name)) is type(expected)


def test_flags_switch_on_and_off(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[model]\nnormalise_observations = true\n")

    assert parse("--normalise-observations").config.model.normalise_observations
    assert parse("--config", path).config.model.normalise_observations
    config = parse("--config", path, "--no-normalise-observations").config
    assert not config.model.normalise_observations
    assert parse("--json", "--quiet", "--verbose").json
    assert parse("--hidden-sizes", "1", "2", "--drain-s", "3").extra == ServeOptions(drain_s=3.0)


def write_run(path: Path, config: TrainConfig) -> Path:
    path.mkdir()
    (path / "config.toml").write_text(dump_config(config))
    return path


def test_resume_starts_from_the_settings_of_the_run(tmp_path: Path) -> None:
    """Seen to fail with the preset of the environment as base."""
    preset = make_preset("cartpole")
    environment = dataclasses.replace(preset.environment, env="ALE/Pong-v5")
    loss = dataclasses.replace(preset.loss, clip_rho_threshold=None)
    before = dataclasses.replace(preset, environment=environment, loss=loss)
    run = write_run(tmp_path / "run", before)

    arguments = parse("--resume", run, "--total-steps", "300_000")

    assert arguments.resume == run
    assert arguments.preset is None
    job = dataclasses.replace(before.job, total_steps=300_000)
    assert arguments.config == dataclasses.replace(before, job=job)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "cartpole"], "--preset is 'cartpole' but must be left out with --resume"),
        (["--config", "x"], "--config is 'x' but must be left out with --resume"),
        (["--run-dir=x"], "--run-dir is 'x' but must be left out with --resume"),
        (["--env", "Other-v0"], "--env is 'Other-v0' but must be CartPole-v1 with --resume"),
    ],
)
def test_resume_with_what_would_change_the_run_is_refused(
    tmp_path: Path, options: list[str], message: str
) -> None:
    environment = dataclasses.replace(TrainConfig().environment, env="CartPole-v1")
    run = write_run(tmp_path / "run", dataclasses.replace(TrainConfig(), environment=environment))

    with pytest.raises(ConfigError, match=message):
        parse("--resume", run, *options)


def test_resume_if_exists_begins_a_run_then_goes_on_with_it(tmp_path: Path) -> None:
    """The same command twice, as a container engine gives it.

    Seen to fail (the preset's settings the second time) with the flag not looked for in time.
    """
    run = tmp_path / "run"
    words = ("--env", "CartPole-v1", "--run-dir", run, "--resume-if-exists", "--preset", "generic")

    first = parse(*words)

    assert (first.run_dir, first.resume, first.preset) == (run, None, "generic")
    changed = dataclasses.replace(first.config.loss, entropy_cost=0.25)
    write_run(run, dataclasses.replace(first.config, loss=changed))
    assert parse(*words).resume is None, "the learner ended before an actor came: nothing to keep"
    (run / "specs.json").write_text("{}")

    second = parse(*words, "--seed", "9")

    assert (second.run_dir, second.resume, second.preset) == (None, run, None)
    assert (second.config.loss.entropy_cost, second.config.job.seed) == (0.25, 9)
    with pytest.raises(ConfigError, match="--env is 'Other-v0' but must be CartPole-v1"):
        parse(*words, "--env", "Other-v0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume-if-exists"], "--resume-if-exists is 'no --run-dir' but must be used with"),
        (["--resume-if-exists", "--run-dir", "x", "--resume", "y"], "is '--resume' but must be"),
        (["--discount", "2"], r"--discount is 2.0 but must be in \[0.0, 1.0\]"),
        (["--preset", "doom"], "--preset is 'doom' but must be one of cartpole"),
        (["--config", "/missing.toml"], "'/missing.toml' but must be a readable TOML file"),
        (["--resume", "/missing"], "a run's folder: there is no /missing/config.toml"),
        (["--lockstep", "--num-actors", "2"], "--num-actors is 2 but must be 1 with --lockstep"),
        (["--host", "0.0.0.0"], "--allow-insecure-public-bind-without-tls"),
        (["--model", "cnn"], "--model is 'cnn' but must be one of auto, mlp, .* or module:Class"),
    ],
)
def test_setting_that_cannot_work_is_a_config_error(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(*options)


@pytest.mark.parametrize("preset", PRESETS)
def test_lockstep_needs_no_other_option(preset: str) -> None:
    """Before: CartPole's preset was refused, for settings that nobody had named."""
    config = parse("--preset", preset, "--lockstep").config
    named = parse("--preset", preset, "--lockstep", "--batch-size", "24").config

    assert config.job.lockstep
    assert (config.job.num_actors, config.environment.envs_per_actor) == (
        1,
        config.rollout.batch_size,
    )
    assert named.environment.envs_per_actor == named.rollout.batch_size == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lerning-rate", "1"], "--learning-rate"),
        (["--discount", "x"], "--discount"),
        (["--env"], "--env"),
        (["--activation", "gelu"], "tanh"),
        (["--seed", "1", "stray"], "stray"),
    ],
)
def test_option_that_cannot_be_parsed_ends_with_usage(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*options)

    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.out + captured.err


def test_help_is_one_screen_and_says_where_the_rest_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Seen to fail with tyro's help of 391 lines."""
    with pytest.raises(SystemExit) as caught:
        parse("--env", "CartPole-v1", "--help")

    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 60
    for option in ("--env", "--resume", "--total-steps", "--help-all", "--version"):
        assert any(line.startswith(f"  {option}") for line in lines)


@pytest.mark.parametrize("option", ["--help", "--help-all"])
@pytest.mark.parametrize("width", [50, 100])
def test_help_breaks_lines_only_where_they_are_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, width: int
) -> None:
    """Seen to fail with the line ends of docstrings kept."""
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        parse(option)

    lines = capsys.readouterr().out.splitlines()
    for line, following in itertools.pairwise(lines):
        is_text_going_on = line[:6] == following[:6] == " " * 6 and "--" not in line
        if is_text_going_on and len(line) - len(line.lstrip()) == len(following) - len(
            following.lstrip()
        ):
            assert len(line) + 1 + len(following.split()[0]) > width, (line, following)


def test_help_all_names_every_setting_and_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help-all", "--env", "CartPole-v1")

    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "Defaults shown: preset 'cartpole'" in text
    for section in dataclasses.fields(TrainConfig):
        assert f"\n{section.name}:\n" in text
        for field in dataclasses.fields(getattr(TrainConfig(), section.name)):
            assert f"--{field.name.replace('_', '-')}" in text
    assert "FLOAT|none" in text


def test_help_needs_neither_torch_nor_grpc_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from impala_common.config.cli import parse_train_config\n"
        "try: parse_train_config('x', ['--help'], 'Trains.')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'grpc', 'numpy', 'gymnasium'} & set(sys.modules)\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, stdout=subprocess.DEVNULL)
