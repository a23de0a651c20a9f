"""Callbacks of a real training: what they are told, that they stop and save, and their errors.

Written to find: the hook of a busy callback called from the training's thread (the learner then
waits for it), an error in a hook that left the learner running.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from seed_agents import SMALL

from impala_agent.results import TrainResult
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.metrics import read_metrics
from impala_common.run.run_data import EvaluationPoint
from impala_rl import IMPALA, Callback, Progress, SaveEvery, read_run

pytestmark = pytest.mark.timeout(180)

MANY = 10_000_000
LIMIT_S = 60.0


class StopsLater(Callback):
    """Keeps the first update waiting until the learner has gone on, and stops after the rest."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}
        self.steps_while_busy = 0
        self.evaluations: list[EvaluationPoint] = []
        self.checkpoints: list[Path] = []
        self.result: TrainResult | None = None

    def on_start(self, progress: Progress) -> None:
        self.told["start"] = progress.steps

    def on_update(self, progress: Progress) -> None:
        if "update" not in self.told:
            self.told["update"] = progress.updates
            deadline_s = time.monotonic() + LIMIT_S
            while self.steps_while_busy < 400 and time.monotonic() < deadline_s:
                time.sleep(0.05)
                lines = read_metrics(progress.run_dir / "metrics.jsonl")
                self.steps_while_busy = (
                    max(
                        (line[metrics.STEPS] for line in lines if metrics.UPDATES in line),
                        default=0,
                    )
                    - progress.steps
                )
        if self.evaluations and self.checkpoints and "episode" in self.told:
            progress.stop()

    def on_episode(self, progress: Progress) -> None:
        self.told.setdefault("episode", progress.episodes)

    def on_evaluation(self, progress: Progress, evaluation: EvaluationPoint) -> None:
        self.evaluations.append(evaluation)

    def on_checkpoint(self, progress: Progress, path: Path) -> None:
        assert (path / "manifest.json").is_file()
        self.checkpoints.append(path)

    def on_end(self, progress: Progress, result: TrainResult | None) -> None:
        self.result = result


def test_callbacks_hear_of_a_training_and_stop_it(tmp_path: Path) -> None:
    callback, saver = StopsLater(), SaveEvery(400)
    config = {"checkpoint": {"keep_checkpoints": 1000}}
    with IMPALA("CartPole-v1", run_dir=tmp_path / "run", config=config, **SMALL) as agent:
        result = agent.train(
            MANY,
            log_interval=0.1,
            eval_interval=400,
            save_interval=400,
            num_eval_episodes=1,
            callbacks=[callback, saver],
        )

    assert callback.told["start"] == 0
    assert callback.told["update"] >= 1
    assert callback.told["episode"] >= 1
    assert callback.steps_while_busy >= 400
    assert callback.result == result
    assert result.reason == "stopped"
    assert 0 < result.num_steps < MANY
    data = read_run(tmp_path / "run")
    assert data.evaluations[: len(callback.evaluations)] == tuple(callback.evaluations)
    assert data.config.environment.env == "CartPole-v1"
    assert data.metrics[-1][metrics.STEPS] == result.num_steps
    assert saver.paths
    assert all((path / "manifest.json").is_file() for path in saver.paths)


class KeepsFirst(Callback):
    """Takes the names that SaveEvery is about to use, as an earlier training would have."""

    def __init__(self, saver: SaveEvery) -> None:
        self.saver = saver
        self.taken: list[Path] = []

    def on_update(self, progress: Progress) -> None:
        reached = progress.steps // 400 * 400
        if self.saver.paths:
            progress.stop()
        elif reached and not self.taken:
            self.taken = [progress.save(f"kept-{reached}{end}") for end in ("", "-2")]


def test_save_every_finds_another_name_where_one_is_taken(tmp_path: Path) -> None:
    """As after a resume from an older step. Before: the training ended with that error."""
    saver = SaveEvery(400)
    first = KeepsFirst(saver)
    with IMPALA("CartPole-v1", run_dir=tmp_path / "run", **SMALL) as agent:
        agent.train(MANY, callbacks=[first, saver])

    assert saver.paths[0].name == f"{first.taken[0].name}-3"
    assert all((path / "manifest.json").is_file() for path in (*first.taken, *saver.paths))


def test_error_of_a_callback_ends_the_training_in_order(tmp_path: Path) -> None:
    ends: list[TrainResult | None] = []

    class Broken(Callback):
        def on_update(self, progress: Progress) -> None:
            raise ZeroDivisionError("mine")

        def on_end(self, progress: Progress, result: TrainResult | None) -> None:
            ends.append(result)

    agent = IMPALA("CartPole-v1", run_dir=tmp_path / "run", **SMALL)
    with pytest.raises(ZeroDivisionError, match="mine"):
        agent.train(MANY, callbacks=[Broken()])

    assert ends == [None]
    assert agent.global_step > 0
    (newest, *_others) = reversed(CheckpointStore(tmp_path / "run" / "checkpoints").names())
    assert newest
    assert not (tmp_path / "run" / "address").exists()
