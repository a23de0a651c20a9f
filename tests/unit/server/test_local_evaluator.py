"""The evaluator of impala-train: started if the settings ask for it, and it never ends a run."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from impala_common.config import EnvironmentConfig, EvaluationConfig, TrainConfig
from impala_common.run.run_directory import RunDirectory
from impala_server.local import evaluator as local_evaluator
from impala_server.local.evaluator import LocalEvaluator
from impala_server.local.process import LocalProcess


def make_config(**settings: object) -> TrainConfig:
    return TrainConfig(
        environment=EnvironmentConfig(env="CartPole-v1"),
        evaluation=EvaluationConfig(**settings),  # type: ignore[arg-type]
    )


def test_evaluator_is_not_started_where_none_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalProcess, "start", lambda unused: pytest.fail("started"))
    evaluator = LocalEvaluator(make_config(), RunDirectory(tmp_path), "127.0.0.1:1")

    evaluator.start()
    evaluator.check()
    evaluator.terminate()
    evaluator.join(1.0)


def test_evaluator_plays_in_the_environment_named_for_it() -> None:
    config = make_config(eval_interval_steps=10, eval_env="CartPole-v0")

    command = local_evaluator._command(config, RunDirectory("x"), "127.0.0.1:1")

    assert command[command.index("--env") + 1] == "CartPole-v0"
    assert "--record-dir" not in command


def test_evaluator_films_into_the_folder_of_the_run_where_videos_are_wanted(
    tmp_path: Path,
) -> None:
    config = make_config(eval_interval_steps=10, eval_video_every=3)

    command = local_evaluator._command(config, RunDirectory(tmp_path), "127.0.0.1:1")

    at = command.index("--record-dir")
    assert command[at : at + 4] == ["--record-dir", str(tmp_path), "--record-every", "3"]


FILMING = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *unused: sys.exit(15))
pathlib.Path("ready").touch()
while not pathlib.Path("filmed").exists():
    time.sleep(0.01)
"""
"""Stands for an evaluator: ends with 0 once its video is there, with 15 when asked to leave."""


@pytest.fixture
def filming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], LocalEvaluator]]:
    """Starts evaluators that film, `every` as in eval_video_every."""
    evaluators: list[LocalEvaluator] = []
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-S", "-c", FILMING]
    monkeypatch.setattr(local_evaluator, "_command", lambda *unused: command)

    def start(every: int) -> LocalEvaluator:
        config = make_config(eval_interval_steps=10, eval_video_every=every)
        run = RunDirectory(tmp_path)
        run.create()
        evaluators.append(LocalEvaluator(config, run, "127.0.0.1:1"))
        evaluators[-1].start()
        deadline_s = time.monotonic() + 20.0
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline_s
            threading.Event().wait(0.01)
        return evaluators[-1]

    yield start
    for evaluator in evaluators:
        evaluator.terminate()
        evaluator.join(10.0)


def exit_code_of(evaluator: LocalEvaluator) -> int:
    assert evaluator._process is not None
    process = evaluator._process._process
    assert process is not None
    return process.wait(10.0)


def test_evaluator_of_a_run_that_is_over_ends_its_video_before_it_is_asked_to_leave(
    filming: Callable[[int], LocalEvaluator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: terminate() without its wait."""
    wait = LocalProcess.wait

    def wait_for_the_video(process: LocalProcess, timeout_s: float) -> None:
        assert timeout_s > 0
        (tmp_path / "filmed").touch()
        wait(process, timeout_s)

    evaluator = filming(1)
    monkeypatch.setattr(LocalProcess, "wait", wait_for_the_video)

    evaluator.terminate(is_run_over=True)

    assert exit_code_of(evaluator) == 0


@pytest.mark.parametrize(("every", "is_run_over"), [(1, False), (0, True), (1, True)])
def test_evaluator_is_asked_to_leave_at_once_or_when_its_video_takes_too_long(
    filming: Callable[[int], LocalEvaluator],
    monkeypatch: pytest.MonkeyPatch,
    every: int,
    is_run_over: bool,
) -> None:
    """A run that was stopped, one without videos, one whose video does not end.

    Planted: the same wait in every case (twice too long); no signal after it.
    """
    is_waited_for = bool(every and is_run_over)
    monkeypatch.setattr(local_evaluator, "_FILMING_S", 0.1 if is_waited_for else 60.0)
    evaluator = filming(every)

    start_s = time.monotonic()
    evaluator.terminate(is_run_over)

    assert exit_code_of(evaluator) == 15
    assert time.monotonic() - start_s < 20.0


def test_evaluator_that_cannot_work_is_given_up_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Planted: `check` lets the error through."""
    code = "import sys; sys.stderr.write('error: no such environment\\n'); sys.exit(78)"
    monkeypatch.setattr(
        local_evaluator, "_command", lambda *unused: [sys.executable, "-S", "-c", code]
    )
    run = RunDirectory(tmp_path)
    run.create()
    evaluator = LocalEvaluator(make_config(eval_interval_steps=10), run, "127.0.0.1:1")
    evaluator.start()
    assert evaluator._process is not None
    process = evaluator._process._process
    assert process is not None
    process.wait(10.0)

    with caplog.at_level(logging.WARNING):
        evaluator.check()
        evaluator.check()

    assert caplog.text.count("no such environment") == 1
    assert evaluator._process is None
