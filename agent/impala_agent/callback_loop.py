"""CallbackLoop: calls the hooks of callbacks while a training runs.

Owned by the thread that called `IMPALA.train`; `tick` is called between its short waits. Reads the
learner's status and metrics.jsonl, so that learner and actors do nothing for callbacks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from impala_agent.callbacks import Callback, Progress
from impala_agent.results import TrainResult
from impala_common.config import TrainConfig
from impala_common.errors import ConfigError
from impala_common.run import metrics
from impala_common.run.run_data import EvaluationPoint, is_evaluation, make_point
from impala_common.run.run_directory import RunDirectory
from impala_server.messages import LearnerStatus

_HOOKS = ("on_start", "on_update", "on_episode", "on_evaluation", "on_checkpoint", "on_end")


class CallbackLoop:
    """The callbacks of one training, and what they have been told."""

    def __init__(
        self, callbacks: Sequence[Callback], config: TrainConfig, run: RunDirectory
    ) -> None:
        """Prepares; nothing is called yet.

        Raises:
          ConfigError: a callback is a class, or has no hooks.
        """
        for callback in callbacks:
            has_hooks = all(callable(getattr(callback, hook, None)) for hook in _HOOKS)
            if isinstance(callback, type) or not has_hooks:
                raise ConfigError(
                    "callbacks", callback, "objects of a class derived from impala_rl.Callback"
                )
        self._callbacks = tuple(callbacks)
        self._config = config
        self._run = run
        self._log = EvaluationLog(run.metrics_path)
        self._has_started = False
        self._updates: float | None = None
        self._episodes: float | None = None
        self._checkpoint = ""

    def tick(self, status: LearnerStatus, request_stop: Callable[[], None]) -> None:
        """Calls the hooks of everything that is new.

        Raises:
          Exception: what a hook raised, with a note that names it.
        """
        if not self._callbacks or status.number(metrics.UPDATES) is None:
            return
        progress = self._make_progress(status, request_stop)
        if not self._has_started:
            self._has_started = True
            self._updates = self._episodes = -1.0
            self._checkpoint = status.last_checkpoint
            self._call("on_start", progress)
        if progress.updates != self._updates and progress.updates:
            self._updates = progress.updates
            self._call("on_update", progress)
        if progress.episodes != self._episodes and progress.episodes:
            self._episodes = progress.episodes
            self._call("on_episode", progress)
        for point in self._log.read_new():
            self._call("on_evaluation", progress, point)
        if status.last_checkpoint != self._checkpoint:
            self._checkpoint = status.last_checkpoint
            path = self._run.checkpoints_path / status.last_checkpoint
            if path.is_dir():  # else removed while a hook was busy; a newer one follows
                self._call("on_checkpoint", progress, path)

    def end(self, status: LearnerStatus, result: TrainResult | None) -> None:
        """Calls the hooks of what came last, then on_end; raises as `tick`.

        Args:
          status: the learner's last.
          result: of the training; None after a failure: then only on_end is called.
        """
        if result is not None:
            self.tick(status, _ignore)
        if self._has_started:
            self._call("on_end", self._make_progress(status, _ignore), result)

    def _make_progress(self, status: LearnerStatus, request_stop: Callable[[], None]) -> Progress:
        return Progress(
            run_dir=self._run.path,
            total_steps=self._config.job.total_steps,
            steps=int(status.number(metrics.STEPS) or 0),
            updates=int(status.number(metrics.UPDATES) or 0),
            episodes=int(status.number(metrics.EPISODES) or 0),
            metrics=dict(status.metrics),
            _request_stop=request_stop,
            _config=self._config,
        )

    def _call(self, hook: str, *arguments: object) -> None:
        for callback in self._callbacks:
            try:
                getattr(callback, hook)(*arguments)
            except Exception as error:
                error.add_note(
                    f"raised by {type(callback).__name__}.{hook} of train(callbacks=...); the "
                    f"training in {self._run.path} was ended in order"
                )
                raise


class EvaluationLog:
    """Reads the evaluations that are appended to a metrics.jsonl from now on."""

    def __init__(self, path: Path) -> None:
        """Leaves out what is there already."""
        self._path = path
        self._place: tuple[int, int] = (0, 0)  # inode, offset in bytes
        self._seen: set[tuple[int, float | None]] = set()
        self.read_new()

    def read_new(self) -> list[EvaluationPoint]:
        """Returns the evaluations since the last call; complete lines only."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                # A learner that resumes replaces the file: it is read from its beginning.
                offset = self._place[1] if inode == self._place[0] else 0
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        self._place = (inode, offset + end)
        points = []
        for text in data[:end].splitlines():
            line = _parse(text)
            if is_evaluation(line) and isinstance(line.get(metrics.STEPS), int):
                point = make_point(line)
                if (point.steps, point.time_s) not in self._seen:
                    self._seen.add((point.steps, point.time_s))
                    points.append(point)
        return points


def _ignore() -> None:
    """Stands for a request to stop a training that has ended."""


def _parse(text: bytes) -> dict[str, Any]:  # Any: JSON
    """Returns the object in a line; an empty one for a line torn by a crash."""
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
