"""ProgressDisplay: a live display of a training run, or plain lines.

The command's main thread feeds it the learner's status, a table by the names of
`impala_common.run.metrics`, and prints through it what must not tear the display.
Writes to stderr: stdout belongs to the result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from impala_common.process.logs import write_line
from impala_common.run import metrics as names
from impala_common.run.sparkline import Sparkline

LINE_INTERVAL_S = 5.0
"""Seconds between two plain lines."""

_STATE_STYLES = {"RUNNING": "green", "STARTING": "yellow", "DRAINING": "yellow"}

Status = Mapping[str, Any]
"""Metrics by name, and `state` and `last_checkpoint` (names). Any: numbers and text."""


class ProgressDisplay:
    """Shows a run; `start`, then `update` about once a second, then `stop`."""

    def __init__(
        self,
        total_steps: int,
        title: str,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        is_json: bool = False,
    ) -> None:
        """Shows nothing yet.

        Args:
          total_steps: where the run ends.
          title: what it is.
          console: where to; default: stderr.
          clock: seconds that only grow.
          is_json: whether lines are JSON, like log records; then there is no live display.
        """
        self._total_steps = total_steps
        self._title = title
        self._console = Console(stderr=True) if console is None else console
        self._clock = clock
        self._is_json = is_json
        self._started_s = clock()
        self._line_s = -math.inf
        self._is_shown = False  # the newest status, as a plain line
        self._waiting_for = Spinner("dots", Text("starting"))
        self._status: Status | None = None
        self._returns = Sparkline()
        self._last_return: float | None = None
        self._live: Live | None = None

    def start(self) -> None:
        """Begins to show."""
        self._started_s = self._clock()
        if self._console.is_terminal and not self._is_json and self._live is None:
            self._live = Live(
                console=self._console, get_renderable=self.render, refresh_per_second=4
            )
            self._live.start()

    def wait(self, text: str) -> None:
        """Says what the run is waiting for; shown until there is a status."""
        self._waiting_for.update(text=Text(text))
        if self._live is None:
            self.message(text)

    def update(self, status: Status | None) -> None:
        """Shows the learner's newest status; None: it has none yet."""
        if status is None:
            return
        self._status = status
        self._is_shown = False
        return_mean = _number(status, names.RETURN_MEAN)
        if return_mean is not None and return_mean != self._last_return:  # news, not a repeat
            self._last_return = return_mean
            self._returns.append(return_mean)
        if self._live is None and self._clock() - self._line_s >= LINE_INTERVAL_S:
            self._line_s = self._clock()
            self._show_line()

    def message(self, text: str) -> None:
        """Prints a line: above the display where there is one."""
        if self._is_json:
            if not self._console.quiet:
                write_line("info", text)
            return
        stamp = time.strftime("%H:%M:%S")
        self._console.print(Text(f"{stamp} {text}"), highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Shows the last status for good and gives the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif not self._is_shown:
            self._show_line()

    def _show_line(self) -> None:
        if self._status is not None:
            self._is_shown = True
            self.message(self.line())

    def __enter__(self) -> ProgressDisplay:
        """Begins to show."""
        self.start()
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Gives the terminal back."""
        self.stop()

    def line(self) -> str:
        """Returns the status in one line."""
        status: Status = self._status or {}
        parts = [
            f"steps {_show(status, names.STEPS, ',.0f')} ({100 * self._fraction():.0f} %)",
            f"{_show(status, names.STEPS_PER_S, ',.0f')}/s",
            f"return {_show(status, names.RETURN_MEAN)}",
            f"length {_show(status, names.LENGTH_MEAN)}",
            f"loss {_show(status, names.LOSS_TOTAL, '.4g')}",
            f"lag {_show(status, names.POLICY_LAG_MEAN)}",
            f"actors {_show(status, names.ACTORS_CONNECTED, '.0f')}",
        ]
        if (judged := _evaluation(status)) is not None:
            parts.append(f"evaluation {judged}, best {_best(status)}")
        if part := str(status.get("bottleneck") or "").partition(":")[0]:
            parts.append(f"bottleneck {part}")
        state = str(status.get("state", "RUNNING"))
        return " ".join(parts if state == "RUNNING" else [state.lower(), *parts])

    def render(self) -> RenderableType:
        """Returns what is shown now."""
        if self._status is None:
            body: RenderableType = self._waiting_for
            state = "STARTING"
        else:
            body = Group(
                self._render_bar(),
                Text(),
                self._render_table(self._status),
                Text(_bottleneck(self._status), "dim", no_wrap=True, overflow="ellipsis"),
            )
            state = str(self._status.get("state", "RUNNING"))
        title = Text.assemble((self._title, "bold"), "  ", (state, _STATE_STYLES.get(state, "dim")))
        return Panel(body, title=title, title_align="left", border_style="dim", padding=(0, 1))

    def _fraction(self) -> float:
        steps = _number(self._status or {}, names.STEPS) or 0.0
        return min(steps / self._total_steps, 1.0)

    def _render_bar(self) -> Table:
        status: Status = self._status or {}
        steps = _number(status, names.STEPS) or 0.0
        rate = _number(status, names.STEPS_PER_S)
        elapsed_s = _number(status, names.TIME_S)
        elapsed_s = self._clock() - self._started_s if elapsed_s is None else elapsed_s
        left_s = max(self._total_steps - steps, 0.0) / rate if rate else None
        counts = Text(f"{steps:,.0f} / {self._total_steps:,} steps  {100 * self._fraction():.0f} %")
        times = Text(f"{_show_time(elapsed_s)} elapsed, {_show_time(left_s)} left", "dim")
        grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_row(ProgressBar(total=1.0, completed=self._fraction()), counts)
        grid.add_row("", times)
        return grid

    def _render_table(self, status: Status) -> Table:
        def show(name: str, form: str = ",.1f") -> str:
            return _show(status, name, form)

        sparkline = self._returns.draw(max(8, min(40, self._console.width // 2 - 28)))
        rejected = sum(_number(status, name) or 0.0 for name in names.UNROLLS_REJECTED)
        rss_bytes = _number(status, names.RSS_BYTES)
        fill = _number(status, names.QUEUE_FILL)
        blocks = round(10 * min(max(fill or 0.0, 0.0), 1.0))
        rows: tuple[tuple[str | Text, ...], ...] = (
            (
                "episode return",
                Text.assemble((show(names.RETURN_MEAN), "bold cyan"), "  ", (sparkline, "cyan")),
                "total loss",
                show(names.LOSS_TOTAL, ".4g"),
            ),
            ("episode length", show(names.LENGTH_MEAN), "policy", show(names.LOSS_PG, ".4g")),
            (
                "steps/s",
                show(names.STEPS_PER_S, ",.0f"),
                "baseline",
                show(names.LOSS_BASELINE, ".4g"),
            ),
            ("updates/s", show(names.UPDATES_PER_S), "entropy", show(names.LOSS_ENTROPY, ".4g")),
            (
                "actors",
                f"{show(names.ACTORS_CONNECTED, '.0f')} connected",
                "policy lag",
                f"{show(names.POLICY_LAG_MEAN)} mean, {show(names.POLICY_LAG_MAX, '.0f')} max",
            ),
            (
                "weights",
                f"version {show(names.POLICY_VERSION, ',.0f')}",
                "queue",
                f"{'█' * blocks}{'░' * (10 - blocks)} {show(names.QUEUE_FILL, '.0%')}",
            ),
            (
                "unrolls",
                f"{show(names.UNROLLS_ACCEPTED, ',.0f')} accepted",
                "rejected",
                Text(f"{rejected:,.0f}", "yellow" if rejected else ""),
            ),
            (
                "checkpoint",
                str(status.get("last_checkpoint") or "-"),
                "memory",
                "-" if rss_bytes is None else f"{rss_bytes / 2**20:,.0f} MiB",
            ),
        )
        if (judged := _evaluation(status)) is not None:
            rows = (*rows, ("evaluation", Text(judged, "cyan"), "best", _best(status)))
        grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
        for ratio in (None, 1, None, 1):
            grid.add_column(ratio=ratio, no_wrap=True, style="dim" if ratio is None else None)
        for row in rows:
            grid.add_row(*row)
        return grid


def _bottleneck(status: Status) -> str:
    return f"bottleneck  {status.get('bottleneck') or '-'}"


def _evaluation(status: Status) -> str | None:
    """Returns the newest evaluation as text; None where there is none."""
    if _number(status, names.EVALUATION_RETURN_MEAN) is None:
        return None
    mean, error = _show(status, names.EVALUATION_RETURN_MEAN), _show(status, names.EVALUATION_ERROR)
    return f"{mean} ± {error} at {_show(status, 'evaluation_steps', ',.0f')}"


def _best(status: Status) -> str:
    best_steps = _show(status, names.EVALUATION_BEST_STEPS, ",.0f")
    return f"{_show(status, names.EVALUATION_BEST)} at {best_steps}"


def _number(status: Status, name: str) -> float | None:
    """Returns a metric, or None where it is missing or not finite."""
    value = status.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _show(status: Status, name: str, form: str = ",.1f") -> str:
    """Returns a metric as text, "-" where it is missing or not finite."""
    value = _number(status, name)
    return "-" if value is None else format(value, form)


def _show_time(duration_s: float | None) -> str:
    """Returns h:mm:ss."""
    if duration_s is None:
        return "-"
    minutes, seconds = divmod(int(duration_s), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
