"""ProgressDisplay: a live display of a training run, or plain lines.

The command's main thread feeds it the learner's status, and prints through it what must not tear
the display. Writes to stderr: stdout belongs to the result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import (
    Console,
    ConsoleDimensions,
    ConsoleRenderable,
    Group,
    RenderableType,
)
from rich.control import Control
from rich.live import Live
from rich.live_render import LiveRender
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from impala_common.process.logs import write_line
from impala_common.process.terminals import can_show_live, keeps_prints_apart
from impala_common.run import metrics as names
from impala_common.run.return_text import show_return
from impala_common.run.sparkline import Sparkline
from impala_server.findings import THRESHOLDS
from impala_server.messages import LearnerStatus

LINE_INTERVAL_S = 5.0
"""Seconds between two plain lines."""
OLD_RETURN_STEPS = THRESHOLDS.no_episode_steps
"""Agent steps without the end of an episode after which the last returns are not shown."""

_NARROW = 80
"""Columns of a terminal below which the table has one value a line, so that none is cut."""

_NOTHING = LearnerStatus(state="RUNNING")
_STATE_STYLES = {"RUNNING": "green", "STARTING": "yellow", "DRAINING": "yellow"}


class _ResizableLive(Live):
    """A live display that clears the screen when the terminal is resized.

    A narrower terminal wraps its lines again, so the number of lines to overwrite is unknown.
    """

    _size: ConsoleDimensions | None = None

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Called by rich for everything printed: returns it with the display below."""
        with self._lock:
            size, last = self.console.size, self._size
            self._size = size
            if last not in (None, size) and self.console.is_interactive:
                self._live_render = LiveRender(self.get_renderable())
                renderables = [Control.clear(), Control.home(), *renderables]
            return super().process_renderables(renderables)


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
        """Prepares; `start` begins to show.

        Args:
          total_steps: where the run ends, until a status says it.
          title: title of the display.
          console: default: stderr.
          clock: monotonic, in seconds.
          is_json: whether to print JSON lines, like log records, in place of a live display.
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
        self._status: LearnerStatus | None = None
        self._returns = Sparkline()
        self._last_return: float | None = None
        self._live: Live | None = None

    def start(self) -> None:
        """Begins to show."""
        self._started_s = self._clock()
        if can_show_live(self._console) and not self._is_json and self._live is None:
            self._live = _ResizableLive(
                console=self._console,
                get_renderable=self.render,
                refresh_per_second=4,
                redirect_stdout=not keeps_prints_apart(),
            )
            self._live.start()

    def wait(self, text: str) -> None:
        """Shows what the run waits for, until the first status."""
        self._waiting_for.update(text=Text(text))
        if self._live is None:
            self.message(text)

    def update(self, status: LearnerStatus | None) -> None:
        """Shows the learner's newest status; None: it has none yet."""
        if status is None:
            return
        self._status = status
        self._total_steps = status.total_steps or self._total_steps
        self._is_shown = False
        return_mean = _number(status, names.RETURN_MEAN)
        # Only a changed value is new.
        if return_mean is not None and return_mean != self._last_return:
            self._last_return = return_mean
            self._returns.append(return_mean)
        if self._live is None and self._clock() - self._line_s >= LINE_INTERVAL_S:
            self._line_s = self._clock()
            self._show_line()

    def message(self, text: str) -> None:
        """Prints a line, above the live display if it is on."""
        if self._is_json:
            if not self._console.quiet:
                write_line("info", text)
            return
        stamp = time.strftime("%H:%M:%S")
        self._console.print(Text(f"{stamp} {text}"), highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Leaves the last status on the screen and ends the live display."""
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
        """Ends the live display."""
        self.stop()

    def line(self) -> str:
        """Returns the status in one line."""
        status: LearnerStatus = self._status or _NOTHING
        parts = [
            f"steps {_show(status, names.STEPS, ',.0f')} ({100 * self._fraction():.0f} %)",
            f"{_show(status, names.STEPS_PER_S, ',.0f')}/s",
            f"return {_show_return(status)}",
            f"length {_show(status, names.LENGTH_MEAN)}",
            f"loss {_show(status, names.LOSS_TOTAL, '.4g')}",
            f"lag {_show(status, names.POLICY_LAG_MEAN)}",
            f"actors {_show(status, names.ACTORS_CONNECTED, '.0f')}",
        ]
        if (judged := _evaluation(status)) is not None:
            parts.append(f"evaluation {judged}, best {_best(status)}")
        if part := status.bottleneck.partition(":")[0]:
            parts.append(f"bottleneck {part}")
        parts += [f"({text.partition(':')[0]})" for text in status.findings]
        state = status.state
        return " ".join(parts if state == "RUNNING" else [state.lower(), *parts])

    def render(self) -> RenderableType:
        """Returns the renderable of the present status."""
        if self._status is None:
            body: RenderableType = self._waiting_for
            state = "STARTING"
        else:
            body = Group(
                self._render_bar(),
                Text(),
                self._render_table(self._status),
                Text(_bottleneck(self._status), "dim", no_wrap=True, overflow="ellipsis"),
                *(Text(text, "yellow") for text in self._status.findings),
            )
            state = self._status.state
        title = Text.assemble((self._title, "bold"), "  ", (state, _STATE_STYLES.get(state, "dim")))
        return Panel(body, title=title, title_align="left", border_style="dim", padding=(0, 1))

    def _fraction(self) -> float:
        steps = _number(self._status or _NOTHING, names.STEPS) or 0.0
        return min(steps / self._total_steps, 1.0)

    def _render_bar(self) -> Table:
        status: LearnerStatus = self._status or _NOTHING
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
        bar = ProgressBar(total=1.0, completed=self._fraction())
        if self._console.width < _NARROW:
            narrow = Table.grid(expand=True)
            narrow.add_column(no_wrap=True)
            for line in (bar, counts, times):
                narrow.add_row(line)
            return narrow
        grid.add_row(bar, counts)
        grid.add_row("", times)
        return grid

    def _render_table(self, status: LearnerStatus) -> Table:
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
                Text.assemble((_show_return(status), "bold cyan"), "  ", (sparkline, "cyan")),
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
            ("updates/s", show(names.UPDATES_PER_S), "entropy", _show_entropy(status)),
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
                status.last_checkpoint or "-",
                "memory",
                "-" if rss_bytes is None else f"{rss_bytes / 2**20:,.0f} MiB",
            ),
        )
        if (judged := _evaluation(status)) is not None:
            rows = (*rows, ("evaluation", Text(judged, "cyan"), "best", _best(status)))
        is_narrow = self._console.width < _NARROW
        grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
        for ratio in (None, 1) if is_narrow else (None, 1, None, 1):
            grid.add_column(ratio=ratio, no_wrap=True, style="dim" if ratio is None else None)
        for row in rows:
            for cells in (row[:2], row[2:]) if is_narrow else (row,):
                grid.add_row(*cells)
        return grid


def _show_entropy(status: LearnerStatus) -> str:
    """Returns the policy's mean entropy; it is no loss term, so its unit stands beside it."""
    entropy = _show(status, names.ENTROPY, ".4g")
    return entropy if entropy == "-" else f"{entropy} nats"


def _bottleneck(status: LearnerStatus) -> str:
    return f"bottleneck  {status.bottleneck or '-'}"


def _evaluation(status: LearnerStatus) -> str | None:
    """Returns the newest evaluation as text; None where there is none."""
    mean = _number(status, names.EVALUATION_RETURN_MEAN)
    if mean is None:
        return None
    error = show_return(_number(status, names.EVALUATION_ERROR), beside=mean, decimals=1)
    return (
        f"{show_return(mean, decimals=1)} ± {error} at {_show(status, 'evaluation_steps', ',.0f')}"
    )


def _best(status: LearnerStatus) -> str:
    best_steps = _show(status, names.EVALUATION_BEST_STEPS, ",.0f")
    best = show_return(_number(status, names.EVALUATION_BEST), decimals=1)
    return f"{best} at {best_steps}"


def _number(status: LearnerStatus, name: str) -> float | None:
    """Returns a metric, or None where it is missing or not finite."""
    value = status.number(name)
    return value if value is not None and math.isfinite(value) else None


def _show_return(status: LearnerStatus) -> str:
    """Returns the mean return as text, or for how many steps there has been none."""
    steps = _number(status, names.STEPS_SINCE_EPISODE) or 0.0
    if steps >= OLD_RETURN_STEPS:
        return f"none for {steps:,.0f} steps"
    return show_return(_number(status, names.RETURN_MEAN), decimals=1)


def _show(status: LearnerStatus, name: str, form: str = ",.1f") -> str:
    """Returns a metric as text, "-" where it is missing or not finite."""
    value = _number(status, name)
    return "-" if value is None else format(value, form)


def _show_time(duration_s: float | None) -> str:
    """Returns h:mm:ss."""
    if duration_s is None:
        return "-"
    minutes, seconds = divmod(int(duration_s), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
