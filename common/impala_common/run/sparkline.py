"""Sparkline: a bounded summary of a series of values, drawn as a line of characters.

Used by the progress display and by `impala-admin watch`, for any value.
"""

from __future__ import annotations

import itertools

_BLOCKS = "▁▂▃▄▅▆▇█"


class Sparkline:
    """A series of values in bounded memory: neighbours are merged when it gets long."""

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._means: list[float] = []
        self._stride = 1
        self._pending: list[float] = []

    def append(self, value: float) -> None:
        """Appends a value."""
        self._pending.append(value)
        if len(self._pending) < self._stride:
            return
        self._means.append(sum(self._pending) / len(self._pending))
        self._pending = []
        if len(self._means) >= self._capacity:
            pairs = zip(self._means[::2], self._means[1::2], strict=False)
            self._means = [(first + second) / 2 for first, second in pairs]
            self._stride *= 2

    def draw(self, width: int) -> str:
        """Returns the series as at most `width` characters, lowest to highest block."""
        means = self._means
        if len(means) > width:
            edges = [round(index * len(means) / width) for index in range(width + 1)]
            means = [sum(means[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]
        if not means:
            return ""
        low, span = min(means), max(means) - min(means)
        levels = [int((mean - low) / span * 7.999) if span > 0 else 3 for mean in means]
        return "".join(_BLOCKS[level] for level in levels)
