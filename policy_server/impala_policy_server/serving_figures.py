"""ServingFigures: what the policy server measures of its batches.

Owned by the dispatcher, on the event loop; the Prometheus endpoint's threads read it. Numbers only
ever go up.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the buckets of batch sizes, in slots."""
WAITS_S = (0.0001, 0.0003, 0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Upper bounds of the buckets of waits, in seconds."""


class Buckets:
    """Counts of values by size.

    Attributes:
      total: sum of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        """Starts with counts of 0; a value belongs to the first bound that is not below it."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """Yields (bound, number of values up to it), as Prometheus counts them."""
        number = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), list(self._counts), strict=True):
            number += count
            yield bound, number


class ServingFigures:
    """Figures of one policy server.

    Attributes:
      batch_sizes: slots decided at a time.
      waits_s: from the first observation of a batch to its decisions.
    """

    def __init__(self) -> None:
        """Starts with nothing."""
        self.batch_sizes = Buckets(BATCH_SIZES)
        self.waits_s = Buckets(WAITS_S)

    def note_batch(self, num_slots: int, wait_s: float) -> None:
        """Counts one batch."""
        self.batch_sizes.add(num_slots)
        self.waits_s.add(wait_s)
