"""Learner ranks as commands start them: impala-train on one machine, and torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import FOR_EVER, WAIT_S, Command, newest_metric

from impala_common.process.exit_codes import CONFIG, OK, TEMPORARY
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.timeout(240), pytest.mark.e2e]
TWO = ["--env", "CartPole-v1", "--port", "0", "--learner-ranks", "2", "--num-actors", "2"]
TWO += ["--log-interval-s", "0.2", "--device", "cpu"]
LONG_S = 3 * WAIT_S


def test_train_on_two_ranks_ends_with_one_result(tmp_path: Path) -> None:
    options = ["--total-steps", "5000", "--eval-episodes", "0", "--json", "--run-dir", "run"]
    with Command(tmp_path, "impala-train", *TWO, *options) as train:
        assert train.wait(LONG_S) == OK, train.err
        result = train.result()

    rank = RunDirectory(tmp_path / "run" / "ranks" / "rank-001")
    assert result["steps"] >= 5000
    assert rank.metrics_path.exists()
    assert not rank.checkpoints_path.exists() or not list(rank.checkpoints_path.iterdir())
    assert newest_metric(tmp_path / "run", metrics.ACTORS_CONNECTED) <= 2


@pytest.mark.extended
def test_train_on_two_ranks_ends_in_order_on_a_signal(tmp_path: Path) -> None:
    options = ["--total-steps", FOR_EVER, "--run-dir", "run"]
    with Command(tmp_path, "impala-train", *TWO, *options) as train:
        has_begun = lambda: newest_metric(tmp_path / "run", metrics.UPDATES) > 5  # noqa: E731
        train.wait_until(has_begun, "updates", LONG_S)
        train.interrupt()
        assert train.wait() == OK, train.err
        log = (tmp_path / "run" / "logs" / "rank-1.log").read_text()

    assert "error" not in log


@pytest.mark.extended
def test_train_says_so_when_a_rank_dies(tmp_path: Path) -> None:
    options = ["--total-steps", FOR_EVER, "--run-dir", "run"]
    with Command(tmp_path, "impala-train", *TWO, *options) as train:
        has_begun = lambda: newest_metric(tmp_path / "run", metrics.UPDATES) > 5  # noqa: E731
        train.wait_until(has_begun, "updates", LONG_S)
        (learner,) = [
            one for one in train.children("impala_server.learner") if '"rank": 1' in _line(one)
        ]
        learner.send_signal(signal.SIGKILL)
        assert train.wait() == TEMPORARY, train.err
        text = train.err

    assert "learner rank" in text


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("impala-server", ["--learner-ranks", "2"], "torchrun --nproc-per-node 2"),
        (
            "impala-train",
            ["--learner-ranks", "2", "--num-actors", "1"],
            "at least 2, one for each learner rank",
        ),
    ],
)
def test_command_that_cannot_have_ranks_is_refused(
    tmp_path: Path, name: str, options: list[str], text: str
) -> None:
    with Command(tmp_path, name, "--env", "CartPole-v1", "--run-dir", "run", *options) as command:
        assert command.wait() == CONFIG
        assert text in command.err
    assert not (tmp_path / "run").exists()


@pytest.mark.extended
def test_torchrun_starts_ranks_that_actors_find_by_one_address(tmp_path: Path) -> None:
    options = ["--env", "CartPole-v1", "--run-dir", "run", "--port", "0", "--total-steps", "5000"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "impala_server", *options, "--device", "cpu"]
    with (tmp_path / "torchrun.err").open("wb") as err:
        torchrun = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=err,
            stderr=err,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        address_path = RunDirectory(tmp_path / "run").address_path
        deadline = LONG_S
        while not address_path.exists() and deadline > 0:
            deadline -= 0.1
            with pytest.raises(subprocess.TimeoutExpired):
                torchrun.wait(0.1)
        actor = ["--server", address_path.read_text().strip(), "--env", "CartPole-v1"]
        with (
            Command(tmp_path, "impala-actor", *actor, "--actor-id", "a") as first,
            Command(tmp_path, "impala-actor", *actor, "--actor-id", "b") as second,
        ):
            assert torchrun.wait(LONG_S) == OK, (tmp_path / "torchrun.err").read_text()
            assert first.wait() == second.wait() == OK
    finally:
        if torchrun.poll() is None:
            os.killpg(torchrun.pid, signal.SIGKILL)


def _line(process: object) -> str:
    return " ".join(process.cmdline())  # type: ignore[attr-defined]
