"""What a part of the benchmark suite is: a module that measures, renders and names its figures.

A section is a module of this package with these four names, listed in sections.py:

    TITLE = "The wire"                       # heading in docs/performance.md
    def measure(settings: BenchSettings) -> Json: ...      # minutes; returns plain JSON
    def render(result: Json) -> str: ...                   # markdown below the heading
    def figures(result: Json) -> dict[str, float]: ...     # what targets.toml judges

`measure` is called in a process of its own (section_process.py), so that it may set torch's
threads or fill its memory, within `TIMEOUT_S`. It starts nothing that outlives it. What it
compares it measures side by side, window by window in turn (`interleave`), and keeps
as `summarise` of those windows: the median and its spread. Judge by CPU time per step beside wall
time: the machine may be shared. With `settings.is_quick` every path runs, for seconds, and
the figures mean nothing.

`render` and `figures` see nothing but the JSON, which may come from docs/results/performance.json
and an older commit. The names of `figures` are stable: targets.toml has the target and, where it
is missed, the reason, under "SECTION/FIGURE".
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Json = dict[str, Any]  # Any: what JSON holds

TIMEOUT_S = 1800.0
"""Seconds after which a section is ended and counts as failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What every section is told. Plain values only: it goes to its process as JSON."""

    is_quick: bool = False
    """Try every path for seconds; the figures mean nothing."""
    num_windows: int = 6
    """Windows of each measurement; their median is the figure, their range the noise."""
    window_s: float = 10.0
    """Seconds of a window of whole training; smaller measurements take `part_window_s`."""
    part_window_s: float = 1.0
    """Seconds of a window in which one part runs alone."""
    warm_up_s: float = 15.0
    """Seconds of training before the first window."""
    train_options: tuple[str, ...] = ()
    """Options of impala-train to measure beside the default ones."""
    earlier: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    """Results of the sections before this one in the same run, by name."""


class Section(Protocol):
    """What sections.py lists."""

    TITLE: str

    def measure(self, settings: BenchSettings) -> Json:
        """Measures and returns JSON."""

    def render(self, result: Json) -> str:
        """Returns markdown for a result of `measure`."""

    def figures(self, result: Json) -> dict[str, float]:
        """Returns the figures of a result that targets are about, by name."""


def summarise(values: Sequence[float]) -> Json:
    """Returns the median of the windows' values and how far they spread."""
    median = statistics.median(values)
    spread = (max(values) - min(values)) / abs(median) if median else 0.0
    return {
        "median": median,
        "low": min(values),
        "high": max(values),
        "spread": round(spread, 4),
        "windows": list(values),
    }


def interleave(
    variants: Mapping[str, Callable[[], float]], num_windows: int
) -> dict[str, list[float]]:
    """Measures each variant once per round, in turn: what the machine does meets all of them.

    Args:
      variants: by name, what measures one window and returns its value.
      num_windows: rounds.

    Returns:
      The values by variant, one per round.
    """
    values: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(num_windows):
        for name, measure in variants.items():
            values[name].append(measure())
    return values
