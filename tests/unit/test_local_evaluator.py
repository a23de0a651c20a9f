"""The evaluator of impala-train: there where it is wanted, and never the end of a run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from impala_common.config import EnvironmentConfig, EvaluationConfig, TrainConfig
from impala_common.run_directory import RunDirectory
from impala_server import local_evaluator
from impala_server.local_evaluator import LocalEvaluator
from impala_server.local_process import LocalProcess


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
