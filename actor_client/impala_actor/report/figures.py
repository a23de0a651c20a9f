"""Plotly figures of the report: returns, learning, throughput, lag and actors.

Each function takes all runs and returns one figure; a run has the same colour in all of them.
plotly is imported late: it is an extra, and slow to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from impala_actor.report.run_view import RunView, Value, of, share_of, sum_of
from impala_common.run import metrics

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#e377c2", "#7f7f7f")
_TIME = "seconds of training"
_STEPS = "agent steps"
_NUM_COLUMNS = 3
_ROW_PIXELS = 230

Figure = Any  # plotly has no types


class Panel(NamedTuple):
    """One small diagram.

    Attributes:
      title: its heading.
      values: curves by their name; one without a name is drawn in full, others are dashed.
      is_stepped: whether values hold until the next one.
    """

    title: str
    values: dict[str, Value]
    is_stepped: bool = False


LEARNING = (
    Panel("policy loss", {"": of(metrics.LOSS_PG)}),
    Panel("value loss", {"": of(metrics.LOSS_BASELINE)}),
    Panel("entropy of the policy, nats", {"": of(metrics.ENTROPY)}),
    Panel("KL divergence of an update, nats", {"": of(metrics.KL)}),
    Panel("explained variance of the values", {"": of(metrics.EXPLAINED_VARIANCE)}),
    Panel("gradient norm", {"": of(metrics.GRAD_NORM)}),
    Panel("effective sample share", {"": of(metrics.EFFECTIVE_SAMPLE_SHARE)}),
    Panel("episode length, steps", {"": of(metrics.LENGTH_MEAN)}),
    Panel("learning rate", {"": of(metrics.LEARNING_RATE)}),
)
THROUGHPUT = (
    Panel("agent steps per second", {"": of(metrics.STEPS_PER_S)}),
    Panel(
        "learner: share of time in updates",
        {"": share_of(metrics.UPDATE_S, metrics.UPDATES_PER_S)},
    ),
    Panel(
        "learner: wait for a batch, ms",
        {"": of(metrics.BATCH_WAIT_S, 1e3)},
    ),
    Panel("actors: environment, µs a step", {"": of(metrics.ENVIRONMENT_S, 1e6)}),
    Panel("actors: inference, µs a step", {"": of(metrics.INFERENCE_S, 1e6)}),
    Panel("actors: wait for the learner, µs a step", {"": of(metrics.BLOCKED_S, 1e6)}),
)
LAG = (
    Panel(
        "policy lag, updates (dashed: largest)",
        {"": of(metrics.POLICY_LAG_MEAN), "largest": of(metrics.POLICY_LAG_MAX)},
    ),
    Panel("share of clipped ratios", {"": of(metrics.RHO_CLIPPED_FRACTION)}),
    Panel("rollout storage in use, share", {"": of(metrics.QUEUE_FILL)}),
)
ACTORS = (
    Panel("actors connected", {"": of(metrics.ACTORS_CONNECTED)}, is_stepped=True),
    Panel("unrolls not taken, in all", {"": sum_of(metrics.UNROLLS_REJECTED)}, is_stepped=True),
    Panel("failures of environments, in all", {"": of(metrics.ENVIRONMENT_FAILURES)}, True),
)


def draw_returns(views: Sequence[RunView]) -> Figure:
    """Returns curves of the mean return over steps and over time.

    The band is the standard deviation of recent returns; points are evaluations with their 95 %
    interval.
    """
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.03)
    for index, view in enumerate(views):
        colour = COLOURS[index % len(COLOURS)]
        for column, x in ((1, metrics.STEPS), (2, metrics.TIME_S)):
            xs, means = view.column(of(metrics.RETURN_MEAN), x)
            style = {"legendgroup": view.label, "name": view.label}
            for band in _make_band(view, x):
                figure.add_trace(
                    go.Scatter(
                        **style, **band, fill="toself", fillcolor=colour, opacity=0.15,
                        line={"width": 0}, hoverinfo="skip", showlegend=False,
                    ),
                    1, column,
                )  # fmt: skip
            mode = "lines+markers" if len(xs) < 2 else "lines"
            figure.add_trace(
                go.Scatter(
                    **style, x=xs, y=means, mode=mode, line={"color": colour},
                    showlegend=column == 1,
                ),
                1, column,
            )  # fmt: skip
            points = [
                point for point in view.data.evaluations
                if x == metrics.STEPS or point.time_s is not None
            ]  # fmt: skip
            if not points:
                continue
            lows = [p.return_mean - _or(p.confidence_low, p.return_mean) for p in points]
            highs = [_or(p.confidence_high, p.return_mean) - p.return_mean for p in points]
            figure.add_trace(
                go.Scatter(
                    x=[point.steps if x == metrics.STEPS else point.time_s for point in points],
                    y=[point.return_mean for point in points],
                    error_y={"type": "data", "array": highs, "arrayminus": lows, "width": 3},
                    mode="markers", marker={"color": colour, "size": 8, "line": {"width": 1}},
                    name=f"{view.label}: evaluation", legendgroup=view.label,
                    showlegend=column == 1,
                ),
                1, column,
            )  # fmt: skip
    figure.update_xaxes(title_text=_STEPS, row=1, col=1, rangemode="tozero")
    figure.update_xaxes(title_text=_TIME, row=1, col=2, rangemode="tozero")
    figure.update_yaxes(title_text="mean return", row=1, col=1)
    return _finish(figure, 430)


def draw_panels(views: Sequence[RunView], panels: Sequence[Panel], *, over_time: bool) -> Figure:
    """Returns a grid of small diagrams, over agent steps or over seconds of training."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    num_rows = -(-len(panels) // _NUM_COLUMNS)
    figure = make_subplots(
        num_rows,
        _NUM_COLUMNS,
        subplot_titles=[panel.title for panel in panels],
        horizontal_spacing=0.06,
        vertical_spacing=0.32 / num_rows,
    )
    x = metrics.TIME_S if over_time else metrics.STEPS
    for position, panel in enumerate(panels):
        row, column = divmod(position, _NUM_COLUMNS)
        if panel.is_stepped:
            figure.update_yaxes(rangemode="tozero", row=row + 1, col=column + 1)
        for index, view in enumerate(views):
            for name, value in panel.values.items():
                xs, ys = view.column(value, x)
                line = {
                    "color": COLOURS[index % len(COLOURS)],
                    "dash": "dot" if name else "solid",
                    "shape": "hv" if panel.is_stepped else "linear",
                    "width": 1.4,
                }
                label = f"{view.label} {name}".strip()
                figure.add_trace(
                    go.Scatter(
                        x=xs, y=ys, mode="lines+markers" if len(xs) < 2 else "lines", line=line,
                        name=label, legendgroup=view.label,
                        showlegend=False,
                    ),
                    row + 1, column + 1,
                )  # fmt: skip
    for column in range(_NUM_COLUMNS):
        figure.update_xaxes(title_text=_TIME if over_time else _STEPS, row=num_rows, col=column + 1)
    figure.update_annotations(font_size=12)
    return _finish(figure, 90 + _ROW_PIXELS * num_rows)


def _make_band(view: RunView, x: str) -> list[dict[str, list[float]]]:
    """Returns x and y of the outline of mean - deviation to mean + deviation; empty: unknown."""
    xs, lows = view.column(
        lambda line: max(
            of(metrics.RETURN_MEAN)(line) - of(metrics.RETURN_STD)(line),
            of(metrics.RETURN_MIN)(line),
        ),
        x,
    )
    other_xs, highs = view.column(
        lambda line: min(
            of(metrics.RETURN_MEAN)(line) + of(metrics.RETURN_STD)(line),
            of(metrics.RETURN_MAX)(line),
        ),
        x,
    )
    if not xs or xs != other_xs:
        return []
    return [{"x": xs + xs[::-1], "y": highs + lows[::-1]}]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _finish(figure: Figure, height: int) -> Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 55, "r": 15, "t": 40, "b": 45},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="closest",
    )
    return figure
