"""Callbacks that come with the package: StopAtReturn, SaveEvery, ProgressBar, NotebookPlot."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import sys
import time
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from impala_agent.argument_types import as_count, as_kind
from impala_agent.callbacks import Callback, Progress
from impala_agent.results import TrainResult
from impala_common.config.checks import require_one_of
from impala_common.errors import (
    AlreadyExistsError,
    IllegalTransitionError,
    LearnerUnavailableError,
    MissingExtraError,
)
from impala_common.process.terminals import is_on_terminal, keeps_prints_apart
from impala_common.run import metrics
from impala_common.run.return_text import show_return
from impala_common.run.run_data import EvaluationPoint

By = Literal["episodes", "evaluation"]


class StopAtReturn(Callback):
    """Ends the training once the mean return reaches a value.

    Args:
      value: the return.
      by: "episodes": the mean of the last 100 episodes of training, once `min_episodes` have
        ended; "evaluation": the mean of an evaluation with drawn actions.
      min_episodes: see `by`.
    """

    def __init__(self, value: float, by: By = "episodes", min_episodes: int = 100) -> None:
        require_one_of("by", by, ("episodes", "evaluation"))
        self._value = as_kind("value", value, float)
        self._by = by
        self._min_episodes = as_count("min_episodes", min_episodes)

    def on_episode(self, progress: Progress) -> None:
        """See Callback."""
        mean = progress.metrics.get(metrics.RETURN_MEAN)
        if self._by == "episodes" and mean is not None and progress.episodes >= self._min_episodes:
            self._stop_if_reached(progress, mean)

    def on_evaluation(self, progress: Progress, evaluation: EvaluationPoint) -> None:
        """See Callback."""
        if self._by == "evaluation":
            self._stop_if_reached(progress, evaluation.return_mean)

    def _stop_if_reached(self, progress: Progress, value: float) -> None:
        if value >= self._value:
            progress.stop()


class SaveEvery(Callback):
    """Keeps a checkpoint for good at every multiple of a number of agent steps, or shortly after.

    `train(save_interval=...)` writes checkpoints as well, of which the newest few stay.

    A training that goes on from an earlier step passes multiples that have a checkpoint already.
    That one stays as it is, and the new one is called by the next free name: kept-20000-2.

    Args:
      num_steps: the interval.
      prefix: the checkpoints' names are the prefix and the multiple.

    Attributes:
      paths: folders of the checkpoints of this training.
    """

    def __init__(self, num_steps: int, prefix: str = "kept-") -> None:
        self._num_steps = as_count("num_steps", num_steps)
        self._prefix = prefix
        self._next = 0
        self.paths: list[Path] = []

    def on_start(self, progress: Progress) -> None:
        """See Callback."""
        self.paths = []
        self._next = (progress.steps // self._num_steps + 1) * self._num_steps

    def on_update(self, progress: Progress) -> None:
        """See Callback."""
        if self._next <= progress.steps < progress.total_steps:
            reached = progress.steps // self._num_steps * self._num_steps
            self._next = reached + self._num_steps
            # A learner that ends meanwhile writes its last checkpoint by itself.
            with contextlib.suppress(LearnerUnavailableError, IllegalTransitionError):
                self.paths.append(self._save(progress, f"{self._prefix}{reached}"))

    def _save(self, progress: Progress, name: str) -> Path:
        """Saves a checkpoint of that name, or of the first free one of NAME-2, NAME-3 ..."""
        for number in itertools.count(1):
            with contextlib.suppress(AlreadyExistsError):
                return progress.save(name if number == 1 else f"{name}-{number}")
        raise AssertionError("count does not end")


class ProgressBar(Callback):
    """Shows one bar with steps, return and remaining time; for terminals and notebooks.

    Use it with `IMPALA(..., quiet=True)`: `train` has a larger display of its own.
    """

    def __init__(self) -> None:
        self._bar: RichProgress | None = None

    def on_start(self, progress: Progress) -> None:
        """See Callback."""
        self._bar = RichProgress(
            TextColumn("return {task.fields[mean]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            # FORCE_COLOR would have every picture of the bar written into a file.
            console=Console(
                file=sys.stderr, force_terminal=None if is_on_terminal(sys.stderr) else False
            ),
            redirect_stdout=not keeps_prints_apart(),
        )
        self._bar.add_task("", total=progress.total_steps, completed=progress.steps, mean="-")
        self._bar.start()

    def on_update(self, progress: Progress) -> None:
        """See Callback."""
        self._show(progress)

    def on_end(self, progress: Progress, result: TrainResult | None) -> None:
        """See Callback."""
        self._show(progress)
        if self._bar is not None:
            self._bar.stop()

    def _show(self, progress: Progress) -> None:
        mean = progress.metrics.get(metrics.RETURN_MEAN)
        if self._bar is not None:
            shown = show_return(mean, decimals=1)
            self._bar.update(self._bar.task_ids[0], completed=progress.steps, mean=shown)


class NotebookPlot(Callback):
    """Draws the return over agent steps into the output of a notebook's cell, and updates it.

    Args:
      interval_s: least time between two pictures.

    Raises:
      MissingExtraError: IPython is not installed.
    """

    def __init__(self, interval_s: float = 1.0) -> None:
        try:
            from IPython.display import Image, display
        except ImportError as error:
            raise MissingExtraError("NotebookPlot", "notebook") from error
        self._display: Any = display  # Any: IPython has no types
        self._make_image: Any = Image
        self._interval_s = as_kind("interval_s", interval_s, float)
        self._shown_s = -math.inf
        self._handle: Any = None  # Any: IPython's DisplayHandle
        self._curve: list[tuple[int, float]] = []
        self._evaluations: list[EvaluationPoint] = []

    def on_start(self, progress: Progress) -> None:
        """See Callback."""
        self._curve, self._evaluations, self._handle = [], [], None

    def on_update(self, progress: Progress) -> None:
        """See Callback."""
        mean = progress.metrics.get(metrics.RETURN_MEAN)
        if mean is not None and (not self._curve or self._curve[-1][1] != mean):
            self._curve.append((progress.steps, mean))  # it changes with each line of metrics
        if self._curve and time.monotonic() - self._shown_s > self._interval_s:
            self._draw(progress)

    def on_evaluation(self, progress: Progress, evaluation: EvaluationPoint) -> None:
        """See Callback."""
        self._evaluations.append(evaluation)

    def on_end(self, progress: Progress, result: TrainResult | None) -> None:
        """See Callback."""
        if self._curve:
            self._curve.append((progress.steps, self._curve[-1][1]))
        self._draw(progress)

    def _draw(self, progress: Progress) -> None:
        from matplotlib.figure import Figure  # slow to import

        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*self._curve, strict=True) if self._curve else ([], []), label="training")
        if self._evaluations:
            steps = [point.steps for point in self._evaluations]
            means = [point.return_mean for point in self._evaluations]
            axes.plot(steps, means, "o", label="evaluation")
        axes.set_xlim(0, progress.total_steps)
        axes.set_xlabel("agent steps")
        axes.set_ylabel("mean return")
        axes.legend(loc="lower right")
        file = io.BytesIO()  # a figure itself is shown as text until %matplotlib is used
        figure.savefig(file, format="png", dpi=110)
        image = self._make_image(data=file.getvalue(), format="png")
        if self._handle is None:
            self._handle = self._display(image, display_id=True)
        else:
            self._handle.update(image)
        self._shown_s = time.monotonic()
