"""read_run: settings, metrics and evaluations of a run's folder as data.

Only reads: the run may still be training. Loads neither torch nor pandas, unless a DataFrame is
asked for.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impala_common.config.toml_io import load_config
from impala_common.config.train import TrainConfig
from impala_common.errors import ConfigError, MissingExtraError
from impala_common.run import metrics as names
from impala_common.run.run_directory import RunDirectory, reading

if TYPE_CHECKING:
    import pandas

Line = dict[str, Any]  # Any: JSON numbers and None
"""One line of metrics.jsonl by the names of `impala_common.run.metrics`."""


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationPoint:
    """One evaluation during training; returns are of whole games, never clipped.

    Attributes:
      steps: agent steps trained of the evaluated weights.
      time_s: seconds of training at which they were set aside.
      num_episodes: episodes played with drawn actions.
      return_mean: their mean return.
      confidence_low: lower end of its 95 % confidence interval; None for a single episode.
      confidence_high: its upper end.
      greedy_return_mean: mean return with the likeliest actions.
      best_return_mean: mean return of the best checkpoint, after this evaluation.
      best_steps: agent steps trained of the best checkpoint.
    """

    steps: int
    time_s: float | None
    num_episodes: int
    return_mean: float
    confidence_low: float | None
    confidence_high: float | None
    greedy_return_mean: float | None
    best_return_mean: float | None
    best_steps: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class RunData:
    """The contents of a run's folder.

    Attributes:
      path: the folder.
      config: all settings.
      metrics: lines of metrics of the learner, oldest first.
      evaluations: evaluations during training, oldest first.
      final_evaluation: the evaluation at the end of impala-train, with the fields of
        `impala-eval --json`; None if there is none.
    """

    path: Path
    config: TrainConfig
    metrics: tuple[Line, ...]
    evaluations: tuple[EvaluationPoint, ...]
    final_evaluation: dict[str, Any] | None  # Any: JSON

    def metrics_frame(self) -> pandas.DataFrame:
        """Returns the lines of metrics as a DataFrame with a column for each metric.

        Raises:
          MissingExtraError: pandas is not installed.
        """
        return _make_frame(self.metrics)

    def evaluations_frame(self) -> pandas.DataFrame:
        """Returns the evaluations as a DataFrame with the fields of EvaluationPoint as columns.

        Raises:
          MissingExtraError: pandas is not installed.
        """
        return _make_frame([dataclasses.asdict(point) for point in self.evaluations])


def read_run(path: str | os.PathLike[str]) -> RunData:
    """Reads a run's folder.

    Args:
      path: the folder; its run may be under way.

    Raises:
      ConfigError: it holds no run, or its settings are of another version; or it cannot be read.
    """
    run = RunDirectory(path)
    with reading("path", run.path):
        if not run.config_path.is_file():
            raise ConfigError("path", str(path), "a run's folder", f"there is no {run.config_path}")
        lines = names.read_metrics(run.metrics_path) if run.metrics_path.exists() else []
    return RunData(
        path=run.path,
        config=load_config(run.config_path),
        metrics=tuple(line for line in lines if names.UPDATES in line),
        evaluations=tuple(make_point(line) for line in lines if is_evaluation(line)),
        final_evaluation=_read_json(run.evaluation_path),
    )


def is_evaluation(line: Mapping[str, Any]) -> bool:  # Any: JSON
    """Returns whether a line of metrics is of an evaluation."""
    return line.get(names.EVALUATION_RETURN_MEAN) is not None and names.UPDATES not in line


def make_point(line: Mapping[str, Any]) -> EvaluationPoint:  # Any: JSON
    """Returns the evaluation in a line of metrics."""
    best_steps = line.get(names.EVALUATION_BEST_STEPS)
    return EvaluationPoint(
        steps=int(line[names.STEPS]),
        time_s=line.get(names.TIME_S),
        num_episodes=int(line.get(names.EVALUATION_EPISODES) or 0),
        return_mean=float(line[names.EVALUATION_RETURN_MEAN]),
        confidence_low=line.get(names.EVALUATION_LOW),
        confidence_high=line.get(names.EVALUATION_HIGH),
        greedy_return_mean=line.get(names.GREEDY_RETURN_MEAN),
        best_return_mean=line.get(names.EVALUATION_BEST),
        best_steps=None if best_steps is None else int(best_steps),
    )


def _make_frame(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:  # Any: numbers
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("a DataFrame", "pandas") from error
    return pandas.DataFrame(list(rows))


def _read_json(path: Path) -> dict[str, Any] | None:  # Any: JSON
    """Returns the object in a file; None if there is no such file, or it is no object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
