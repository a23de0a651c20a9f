"""plot_runs: learning curves of one or several runs as a picture file.

Reads metrics.jsonl, of runs that have ended or still train. Called by
`impala_actor.eval_cli`. Uses matplotlib's objects only, so no global state and
no display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from impala_common.errors import ConfigError
from impala_common.process.utf8 import to_utf8
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory

FloatArray = NDArray[np.float64]


class EvaluationPoints(NamedTuple):
    """Evaluations during training with drawn actions; all arrays have one entry for each.

    Attributes:
      steps: agent steps trained.
      times_s: seconds of training.
      means: mean return.
      lows: lower end of the 95 % confidence interval; the mean where there is none.
      highs: upper end, likewise.
    """

    steps: FloatArray
    times_s: FloatArray
    means: FloatArray
    lows: FloatArray
    highs: FloatArray


class LearningCurve(NamedTuple):
    """Data of one run's plot; arrays have one entry per line of metrics.

    Attributes:
      label: the run's folder name.
      steps: agent steps trained.
      times_s: seconds of training; NaN where unknown.
      means: mean return of recent episodes.
      lows: lower edge of the band: mean - standard deviation, but never below the
        smallest return; NaN where neither is known.
      highs: upper edge, likewise.
      evaluations: results of evaluations during training.
    """

    label: str
    steps: FloatArray
    times_s: FloatArray
    means: FloatArray
    lows: FloatArray
    highs: FloatArray
    evaluations: EvaluationPoints


def plot_runs(paths: Sequence[Path], output_path: Path) -> None:
    """Draws returns over agent steps and over wall time, one line per run.

    Evaluations during training, if any, are points with their 95 % interval.

    Args:
      paths: folders of runs.
      output_path: the picture; its suffix chooses the format (.png, .svg, .pdf).

    Raises:
      ConfigError: a run has no finished episode on record, or the picture cannot be written.
    """
    curves = [read_curve(Path(path)) for path in paths]
    figure = Figure(figsize=(11.0, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    by_steps, by_time = figure.subplots(1, 2, sharey=True)
    unit_s, unit = _choose_time_unit(curves)
    for index, curve in enumerate(curves):
        evaluated = curve.evaluations
        _draw(by_steps, curve, curve.steps, evaluated.steps, f"C{index % 10}")
        _draw(by_time, curve, curve.times_s / unit_s, evaluated.times_s / unit_s, f"C{index % 10}")
    by_steps.set_ylabel("return of an episode")
    _finish(by_steps, "agent steps")
    by_steps.xaxis.set_major_formatter(lambda value, unused_position: _format_count(value))
    _finish(by_time, f"time of training ({unit})")
    if len(curves) == 1:
        figure.suptitle(curves[0].label, fontsize=11)
    if len(curves) > 1 or len(curves[0].evaluations.steps):
        figure.legend(*by_steps.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    try:
        figure.savefig(output_path)
    except (OSError, ValueError) as error:
        raise ConfigError("--plot", str(output_path), "a picture file", str(error)) from error


def read_curve(path: Path) -> LearningCurve:
    """Reads one run's curve; skips torn lines and lines without a finished episode.

    Raises:
      ConfigError: the run has no finished episode.
    """
    metrics_path = RunDirectory(path).metrics_path
    try:
        lines = metrics.read_metrics(metrics_path)
    except OSError as error:
        raise ConfigError("RUN", str(path), "a run's folder", str(error)) from error
    evaluations = _read_evaluations(lines)
    lines = [line for line in lines if math.isfinite(_number(line, metrics.RETURN_MEAN))]
    lines = _drop_superseded(lines)
    if not lines:
        raise ConfigError(
            "RUN", str(path), "a run with data to plot", f"no finished episode in {metrics_path}"
        )

    def column(name: str) -> FloatArray:
        return np.array([_number(line, name) for line in lines], np.float64)

    means, deviations = column(metrics.RETURN_MEAN), column(metrics.RETURN_STD)
    # fmax and fmin ignore NaN: without a deviation the band spans all returns.
    lows = np.fmax(means - deviations, column(metrics.RETURN_MIN))
    highs = np.fmin(means + deviations, column(metrics.RETURN_MAX))
    return LearningCurve(
        label=to_utf8(path.resolve().name),
        steps=column(metrics.STEPS),
        times_s=column(metrics.TIME_S),
        means=means,
        lows=lows,
        highs=highs,
        evaluations=evaluations,
    )


def _read_evaluations(lines: list[dict[str, Any]]) -> EvaluationPoints:  # Any: JSON
    name = metrics.EVALUATION_RETURN_MEAN
    lines = [line for line in lines if math.isfinite(_number(line, name))]
    # Sorted by the steps of the candidates: several evaluators report in any order.
    if all(math.isfinite(_number(line, metrics.TIME_S)) for line in lines):
        lines.sort(key=lambda line: _number(line, metrics.TIME_S))
    lines = _drop_superseded(lines)

    def column(name: str) -> FloatArray:
        return np.array([_number(line, name) for line in lines], np.float64)

    means = column(name)
    lows, highs = column(metrics.EVALUATION_LOW), column(metrics.EVALUATION_HIGH)
    return EvaluationPoints(
        steps=column(metrics.STEPS),
        times_s=column(metrics.TIME_S),
        means=means,
        lows=np.where(np.isfinite(lows), lows, means),
        highs=np.where(np.isfinite(highs), highs, means),
    )


def _number(line: dict[str, Any], name: str) -> float:  # Any: JSON
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _drop_superseded(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:  # Any: JSON
    """Drops lines that were written again after a resume from an older checkpoint."""
    kept: list[dict[str, Any]] = []
    for line in reversed(lines):
        if not kept or line[metrics.STEPS] < kept[-1][metrics.STEPS]:
            kept.append(line)
    return kept[::-1]


def _choose_time_unit(curves: Sequence[LearningCurve]) -> tuple[float, str]:
    """Returns a unit of time in seconds and its name."""
    longest_s = max((float(np.nanmax(curve.times_s, initial=0.0)) for curve in curves), default=0.0)
    if longest_s < 5 * 60:
        return 1.0, "s"
    return (60.0, "min") if longest_s < 5 * 3600 else (3600.0, "h")


def _draw(
    axes: Axes, curve: LearningCurve, x: FloatArray, x_evaluated: FloatArray, color: str
) -> None:
    marker = "o" if len(x) == 1 else None  # a line of one point cannot be seen
    axes.plot(x, curve.means, color=color, linewidth=1.6, marker=marker, label=curve.label)
    axes.fill_between(x, curve.lows, curve.highs, color=color, alpha=0.18, linewidth=0)
    points = curve.evaluations
    if not len(points.steps):
        return
    axes.errorbar(
        x_evaluated,
        points.means,
        yerr=(
            np.maximum(points.means - points.lows, 0),
            np.maximum(points.highs - points.means, 0),
        ),
        fmt="o",
        color=color,
        markersize=4.5,
        markeredgecolor="black",
        markeredgewidth=0.7,
        ecolor="black",
        elinewidth=1.0,
        capsize=2.5,
        label=f"{curve.label}: frozen weights, 95 % interval",
    )


def _finish(axes: Axes, x_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)


def _format_count(value: float) -> str:
    """Returns 250000 as 250k and 2000000 as 2M."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{suffix}"
    return f"{value:g}"
