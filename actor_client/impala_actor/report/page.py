"""make_page: the report about runs as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

import datetime
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from impala_actor.report.figures import (
    ACTORS,
    COLOURS,
    LAG,
    LEARNING,
    THROUGHPUT,
    draw_panels,
    draw_returns,
)
from impala_actor.report.run_view import RunView
from impala_common.errors import MissingExtraError
from impala_common.process.installation import find_version, is_installed
from impala_common.run import metrics
from impala_common.run.return_text import show_return

_STYLE = """
:root { --line: #ddd; --soft: #666; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1180px;
  padding: 0 16px 40px; color: #222; background: #fff; }
h1 { font-size: 26px; margin: 24px 0 4px; } h2 { font-size: 19px; margin: 34px 0 6px; }
p { margin: 4px 0 8px; color: var(--soft); } nav a { margin-right: 14px; color: #1f5fa8; }
table { border-collapse: collapse; font-size: 13.5px; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; }
details { margin: 10px 0; } summary { cursor: pointer; } code { font-size: 12.5px; }
video, .video img { max-width: 320px; border: 1px solid var(--line); }
.videos { display: flex; flex-wrap: wrap; gap: 16px; } .bad { color: #a40000; }
"""


def make_page(views: Sequence[RunView]) -> str:
    """Returns the page.

    Raises:
      MissingExtraError: plotly is not installed.
    """
    if not is_installed("plotly"):
        raise MissingExtraError("impala-report", "report")
    from plotly.offline import get_plotlyjs

    title = ", ".join(view.label for view in views)
    sections = {
        "Summary": _make_summary(views),
        "Return": "<p>Each run has the colour of the table. Lines: mean of recent episodes of "
        "training, with their standard deviation. "
        "Points: evaluations with frozen weights and their 95 % interval.</p>"
        + _embed(draw_returns(views)),
        "Learning": _make_findings(views) + _embed(draw_panels(views, LEARNING, over_time=False)),
        "Throughput": "<p>A learner that is always in updates is the bottleneck; one that waits "
        "for batches has too few actors, or slow ones.</p>"
        + _embed(draw_panels(views, THROUGHPUT, over_time=True)),
        "Lag": "<p>Updates between the weights an unroll was made with and those it trained.</p>"
        + _embed(draw_panels(views, LAG, over_time=True)),
        "Actors": _embed(draw_panels(views, ACTORS, over_time=True)),
        "Settings": _make_settings(views),
        "Videos": _make_videos(views),
    }
    sections = {name: body for name, body in sections.items() if body}
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in sections)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
            f"<script>{get_plotlyjs()}</script></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            f"<p>impala-rl {html.escape(find_version())}, written {now}</p><nav>{links}</nav>",
            *(f'<h2 id="{name.lower()}">{name}</h2>{body}' for name, body in sections.items()),
            "</body></html>\n",
        ]
    )


def _embed(figure: Any) -> str:  # Any: plotly has no types
    """Returns a figure as HTML that uses the page's copy of plotly."""
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
    )
    return text


def _make_summary(views: Sequence[RunView]) -> str:
    rows = []
    for index, view in enumerate(views):
        run, data = view.summary, view.data
        final = data.final_evaluation or {}
        last = data.metrics[-1] if data.metrics else {}
        dot = f'<span class="dot" style="background:{COLOURS[index % len(COLOURS)]}"></span>'
        rows.append(
            [
                f"{dot}{html.escape(view.label)}",
                html.escape(run.env),
                run.state,
                _Number(f"{run.steps:,} of {run.total_steps:,}"),
                _Number(f"{int(last.get(metrics.EPISODES) or 0):,}"),
                _Number(_show(run.training_s, "{:,.0f} s")),
                _Number(show_return(run.return_mean)),
                _Number(show_return(run.best_return_mean)),
                _Number(_show_evaluation(final)),
                _Number(_show(_mean_rate(run.steps, run.training_s), "{:,.0f}")),
            ]
        )
    head = (
        "run", "environment", "state", "steps", "episodes", "training", "return", "best return",
        "evaluation at the end", "steps/s",
    )  # fmt: skip
    return _make_table(head, rows)


def _make_findings(views: Sequence[RunView]) -> str:
    """Returns the findings of each run: a name, and in how many lines of metrics it stood."""
    names = [name for name in metrics.ALL_METRICS if name.startswith("finding/")]
    items = []
    for view in views:
        for name in names:
            count = sum(1 for line in view.lines if line.get(name))
            if count:
                text = name.partition("/")[2].replace("_", " ")
                share = f"in {100 * count / len(view.lines):.0f} % of the lines"
                is_last = bool(view.lines[-1].get(name))
                items.append(
                    f"<li>{html.escape(view.label)}: "
                    f"<span{' class=bad' if is_last else ''}>{text}</span> {share}"
                    f"{', at the end, too' if is_last else ''}</li>"
                )
    return f"<p>Findings of the learner:</p><ul>{''.join(items)}</ul>" if items else ""


def _make_settings(views: Sequence[RunView]) -> str:
    """Returns the differences between the runs, and all settings folded away."""
    settings = [view.settings for view in views]
    head = ("setting", *(html.escape(view.label) for view in views))

    def make_rows(names: Iterable[str]) -> list[list[str]]:
        return [
            [
                f"<code>{name}</code>",
                *(f"<code>{_show_value(table[name])}</code>" for table in settings),
            ]
            for name in names
        ]

    different = [name for name in settings[0] if len({repr(one[name]) for one in settings}) > 1]
    parts = []
    if len(views) > 1:
        parts.append(f"<p>{len(different)} settings differ.</p>")
        parts.append(_make_table(head, make_rows(different)) if different else "")
    every = _make_table(head, make_rows(settings[0]))
    parts.append(f"<details><summary>All {len(settings[0])} settings</summary>{every}</details>")
    return "".join(parts)


def _make_videos(views: Sequence[RunView]) -> str:
    blocks = []
    for view in views:
        for video in view.videos:
            source = f"data:{video.kind};base64,{video.data}"
            picture = (
                f'<img alt="" src="{source}">'
                if video.kind.startswith("image/")
                else f'<video controls muted loop src="{source}"></video>'
            )
            caption = html.escape(f"{view.label}: {video.name}")
            blocks.append(f'<div class="video">{picture}<p>{caption}</p></div>')
    return f'<div class="videos">{"".join(blocks)}</div>' if blocks else ""


class _Number(str):
    """A cell of a table that is aligned to the right."""

    __slots__ = ()


def _make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of cells that are HTML already."""
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    for row in rows:
        cells = (
            f"<td{' class=number' if isinstance(cell, _Number) else ''}>{cell}</td>" for cell in row
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _show(value: float | None, form: str = "{:,.2f}") -> str:
    return "-" if value is None else form.format(value)


def _show_value(value: object) -> str:
    text = "none" if value is None else json.dumps(value)
    return html.escape(text)


def _show_evaluation(final: Mapping[str, Any]) -> str:  # Any: JSON
    mean, error = final.get("return_mean"), final.get("standard_error")
    if not isinstance(mean, int | float):
        return "-"
    if not isinstance(error, int | float):
        return show_return(mean)
    return f"{show_return(mean)} ± {show_return(error, beside=mean)}"


def _mean_rate(steps: int, seconds: float | None) -> float | None:
    return steps / seconds if seconds else None
