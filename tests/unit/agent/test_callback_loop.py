"""Callbacks hear of everything once, in order, and their errors name them.

Written to find: evaluations read again after the file was replaced, a half-written line taken
for a whole one, an evaluation of an earlier training told again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from impala_agent.callback_loop import CallbackLoop, EvaluationLog
from impala_agent.callbacks import Callback, Progress
from impala_agent.results import TrainResult
from impala_agent.shipped_callbacks import ProgressBar, SaveEvery, StopAtReturn
from impala_common.config import TrainConfig
from impala_common.errors import ConfigError
from impala_common.run import metrics
from impala_common.run.run_data import EvaluationPoint
from impala_common.run.run_directory import RunDirectory
from impala_server.messages import LearnerStatus


class Recorder(Callback):
    """Records the hooks that are called."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_start(self, progress: Progress) -> None:
        self.events.append(("start", progress.steps))

    def on_update(self, progress: Progress) -> None:
        self.events.append(("update", progress.updates))

    def on_episode(self, progress: Progress) -> None:
        self.events.append(("episode", progress.episodes))

    def on_evaluation(self, progress: Progress, evaluation: EvaluationPoint) -> None:
        self.events.append(("evaluation", evaluation.steps))

    def on_checkpoint(self, progress: Progress, path: Path) -> None:
        self.events.append(("checkpoint", path.name))

    def on_end(self, progress: Progress, result: TrainResult | None) -> None:
        self.events.append(("end", result))


def make_status(updates: int, episodes: int = 0, checkpoint: str = "", **more: float) -> Any:
    """Returns a status as the learner sends it; 80 steps an update."""
    values = {
        metrics.STEPS: updates * 80,
        metrics.UPDATES: updates,
        metrics.EPISODES: episodes,
    }
    return LearnerStatus(state="RUNNING", metrics=values | more, last_checkpoint=checkpoint)


def evaluation_line(steps: int, mean: float = 1.0) -> str:
    """Returns a line of metrics.jsonl."""
    return json.dumps({metrics.STEPS: steps, metrics.EVALUATION_RETURN_MEAN: mean}) + "\n"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def fail() -> None:
    raise AssertionError("no stop was to be asked for")


def test_each_event_is_told_once_and_in_order(run: RunDirectory) -> None:
    run.metrics_path.write_text(evaluation_line(40))  # of an earlier training
    recorder = Recorder()
    loop = CallbackLoop([recorder], TrainConfig(), run)

    loop.tick(LearnerStatus(state="STARTING"), fail)
    loop.tick(make_status(0), fail)
    loop.tick(make_status(3), fail)
    loop.tick(make_status(3), fail)
    loop.tick(make_status(3, checkpoint="step-3"), fail)  # removed already
    with run.metrics_path.open("a") as file:
        file.write(json.dumps({metrics.STEPS: 240, metrics.UPDATES: 3}) + "\n" + "torn\n")
        file.write(evaluation_line(200))
    (run.checkpoints_path / "step-4").mkdir(parents=True)
    loop.tick(make_status(4, episodes=2, checkpoint="step-4"), fail)
    loop.tick(make_status(4, episodes=2, checkpoint="step-4"), fail)
    loop.end(make_status(5, episodes=2, checkpoint="step-5"), None)

    assert recorder.events == [
        ("start", 0), ("update", 3), ("update", 4), ("episode", 2), ("evaluation", 200),
        ("checkpoint", "step-4"), ("end", None),
    ]  # fmt: skip


def test_half_a_line_waits_and_a_replaced_file_is_not_told_again(run: RunDirectory) -> None:
    log = EvaluationLog(run.metrics_path)
    line = evaluation_line(100)

    run.metrics_path.write_text(line[:20])
    assert log.read_new() == []
    with run.metrics_path.open("a") as file:
        file.write(line[20:])
    assert [point.steps for point in log.read_new()] == [100]
    fresh = run.path / "fresh"
    fresh.write_text(line + evaluation_line(200))
    fresh.replace(run.metrics_path)
    assert [point.steps for point in log.read_new()] == [200]


def test_error_of_a_hook_is_raised_with_its_name(run: RunDirectory) -> None:
    class Broken(Callback):
        def on_update(self, progress: Progress) -> None:
            raise ZeroDivisionError("mine")

    loop = CallbackLoop([Broken()], TrainConfig(), run)

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        loop.tick(make_status(1), fail)
    (note,) = caught.value.__notes__
    assert "Broken.on_update" in note
    assert str(run.path) in note


@pytest.mark.parametrize("value", [print, Recorder, "progress"])
def test_what_is_no_callback_is_refused(run: RunDirectory, value: Any) -> None:
    with pytest.raises(ConfigError, match="of a class derived from"):
        CallbackLoop([value], TrainConfig(), run)


@pytest.mark.parametrize(
    ("status", "is_stopped"),
    [
        (make_status(9, 100, **{metrics.RETURN_MEAN: 475.0}), True),
        (make_status(9, 99, **{metrics.RETURN_MEAN: 475.0}), False),
        (make_status(9, 100, **{metrics.RETURN_MEAN: 474.9}), False),
        (make_status(9, 100), False),
    ],
)
def test_stop_at_return_of_episodes(run: RunDirectory, status: Any, is_stopped: bool) -> None:
    stops: list[bool] = []

    CallbackLoop([StopAtReturn(475)], TrainConfig(), run).tick(status, lambda: stops.append(True))

    assert bool(stops) == is_stopped


def test_stop_at_return_of_an_evaluation(run: RunDirectory) -> None:
    stops: list[bool] = []
    loop = CallbackLoop([StopAtReturn(10, by="evaluation")], TrainConfig(), run)
    high = make_status(9, 200, **{metrics.RETURN_MEAN: 50.0})

    run.metrics_path.write_text(evaluation_line(100, 9.0))
    loop.tick(high, lambda: stops.append(True))
    assert not stops
    with run.metrics_path.open("a") as file:
        file.write(evaluation_line(200, 10.0))
    loop.tick(high, lambda: stops.append(True))
    assert stops


def test_save_every_names_each_multiple_once(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "save", lambda self, name: self.run_dir / name)
    saver = SaveEvery(200)
    loop = CallbackLoop([saver], TrainConfig(), run)

    for updates in (0, 1, 2, 3, 4, 5, 13):  # 80 steps each
        loop.tick(make_status(updates), fail)

    assert [path.name for path in saver.paths] == ["kept-200", "kept-400", "kept-1000"]


def test_progress_bar_shows_steps_and_return(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = CallbackLoop([ProgressBar()], TrainConfig(), run)

    loop.tick(make_status(0), fail)
    loop.end(make_status(7, **{metrics.RETURN_MEAN: 12.5}), None)

    shown = capsys.readouterr().err
    assert "return 12.5" in shown
    assert f"560/{TrainConfig().job.total_steps}" in shown
