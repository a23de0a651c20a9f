"""LogLimit: limits log lines per source line, so that clients cannot fill a log.

A filter of the handler that `impala_common.process.logs` installs. Each place in the code may
log a burst and then one line a second; the next line that passes has the number of lines left out.
The code has a fixed number of places, so this memory is bounded, too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

BURST = 50
"""Lines of one place in the code that pass at once: many actors may register together."""
INTERVAL_S = 1.0
"""Seconds after which one more may pass."""


class _Place:
    """Remaining lines of one place in the code."""

    __slots__ = ("credit", "left_out", "seen_s")

    def __init__(self, now_s: float) -> None:
        self.credit, self.left_out, self.seen_s = float(BURST), 0, now_s


class LogLimit(logging.Filter):
    """Safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts empty; `clock` is monotonic."""
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[tuple[str, str, int], _Place] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether the record is shown; adds the number of suppressed ones to its text."""
        now_s = self._clock()
        with self._lock:
            key = (record.name, record.pathname, record.lineno)
            place = self._places.setdefault(key, _Place(now_s))
            place.credit = min(BURST, place.credit + (now_s - place.seen_s) / INTERVAL_S)
            place.seen_s = now_s
            if place.credit < 1.0:
                place.left_out += 1
                return False
            place.credit -= 1.0
            left_out, place.left_out = place.left_out, 0
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like it since the last one)"
        return True
