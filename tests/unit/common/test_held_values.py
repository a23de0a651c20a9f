"""Settings that no file, message or timer holds are refused by name when they are checked.

Written to find: a seed above 64 bits and an integer above all floats, which ended in a traceback;
total_steps for which every status failed; bytes that are not UTF-8, as Python decodes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from impala_actor import cli as actor_cli
from impala_actor import eval_cli, evaluator_cli
from impala_common.config.job import JobConfig
from impala_common.config.sections import CheckpointConfig, RolloutConfig
from impala_common.config.toml_io import dump_config, load_config
from impala_common.config.train import TrainConfig
from impala_common.errors import ConfigError
from impala_common.process import exit_codes
from impala_common.run.run_directory import RunDirectory
from impala_policy_server import cli as policy_cli
from impala_server import cli, train_cli

BYTES = "\udcff"
HUGE = 10**400
Run = Callable[[list[str]], int]


@pytest.mark.parametrize(
    ("run", "line", "text"),
    [
        (train_cli.run, "CartPole-v1 --seed 18446744073709551616", "--seed is 1844674407370955161"),
        (train_cli.run, "CartPole-v1 --total-steps 9999999999999999999", "--total-steps is 999999"),
        (train_cli.run, f"CartPole-v1 --total-steps {HUGE}", "--total-steps is 1000"),
        (train_cli.run, f"CartPole-v1 --max-policy-lag {HUGE}", "--max-policy-lag is 1000"),
        (train_cli.run, "CartPole-v1 --learner-threads 99999999999", "--learner-threads is 9999"),
        (train_cli.run, "CartPole-v1 --policy-slot-timeout-s 1e12", "--policy-slot-timeout-s is"),
        (train_cli.run, "CartPole-v1 --checkpoint-interval-s 1e300", "--checkpoint-interval-s is"),
        (train_cli.run, f"CartPole-v1 --tag {BYTES}", "--tag is '\\udcff' but must be UTF-8"),
        (train_cli.run, f"CartPole-v1 --init-model-path {BYTES}", "--init-model-path is '\\udcff'"),
        (train_cli.run, f"CartPole-v1 --quiet --run-dir {BYTES}", "run folder is '\\udcff' but mu"),
        (train_cli.run, f"--env {BYTES}", "--env is '\\udcff' but must be UTF-8"),
        (cli.run, "--finished-notice-s 1e300", "--finished-notice-s is 1e+300 but must be in [0,"),
        (cli.run, f"--tag {BYTES}", "--tag is '\\udcff' but must be UTF-8"),
        (policy_cli.run, "--learner a:1 --slot-timeout-s 1e12", "--slot-timeout-s is 100000000000"),
        (policy_cli.run, "--learner a:1 --slot-timeout-s inf", "--slot-timeout-s is inf but must"),
        (policy_cli.run, "--learner a:1 --max-batch-wait-ms 1e300", "--max-batch-wait-ms is 1e+30"),
        (policy_cli.run, "--learner a:1 --max-slots 99999999999", "--max-slots is 99999999999 but"),
        (policy_cli.run, f"--learner a:1 --actor-id {BYTES}", "--actor-id is '\\udcff' but must b"),
        (policy_cli.run, "--learner a:1 --connect-timeout-s 1e300", "--connect-timeout-s is 1e+30"),
        (actor_cli.run, f"--server a:1 --env E --actor-id {BYTES}", "--actor-id is '\\udcff' but"),
        (actor_cli.run, "--server a:1 --env E --torch-threads 999999999", "--torch-threads is 999"),
        (actor_cli.run, "--server a:1 --env E --env-timeout-s 1e300", "--env-timeout-s is 1e+300"),
        (evaluator_cli.run, f"--server a:1 --env E --record-dir {BYTES}", "--record-dir is '\\udc"),
        (eval_cli.main, "run --seed 18446744073709551616", "--seed is 18446744073709551616 but mu"),
        (eval_cli.main, f"run --episodes {HUGE}", "--episodes is 1000"),
        (eval_cli.main, f"run --env {BYTES}", "--env is '\\udcff' but must be UTF-8"),
    ],
)  # fmt: skip
def test_option_that_nothing_holds_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run,
    line: str, text: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    format_ = ["--log-format", "text"] if run in (actor_cli.run, evaluator_cli.run) else []

    assert run([*line.split(" "), *format_]) == exit_codes.CONFIG

    captured = capsys.readouterr()
    assert captured.out == ""
    assert text in captured.err
    assert captured.err.count("\n") == 1, captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("job", f"total_steps = {HUGE}"),
        ("job", f"seed = {2**63}"),
        ("job", f"eval_episodes = {HUGE}"),
        ("checkpoint", f"log_interval_s = {HUGE}"),
        ("loss", f"entropy_cost = {HUGE}"),
    ],
)
def test_number_in_a_file_that_nothing_holds_is_refused(
    tmp_path: Path, table: str, line: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[{table}]\n{line}\n")

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert caught.value.name == line.split()[0]


def test_every_section_takes_large_integers_for_what_they_are() -> None:
    with pytest.raises(ConfigError, match="total_steps"):
        JobConfig(total_steps=HUGE)
    with pytest.raises(ConfigError, match="max_policy_lag"):
        TrainConfig(rollout=RolloutConfig(max_policy_lag=HUGE))
    with pytest.raises(ConfigError, match="keep_checkpoints"):
        TrainConfig(checkpoint=CheckpointConfig(keep_checkpoints=HUGE))


def test_largest_values_are_written_and_read_again(tmp_path: Path) -> None:
    config = TrainConfig(job=JobConfig(total_steps=10**15, seed=2**63 - 1, tag="ü"))
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config))

    assert load_config(path) == config
    assert dataclasses.asdict(config)["job"]["tag"] == "ü"


def test_run_folder_that_no_message_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whose path is UTF-8"):
        RunDirectory(tmp_path / BYTES).lock()
