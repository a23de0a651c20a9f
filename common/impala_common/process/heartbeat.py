"""Heartbeat: a file with the time of a process's last progress.

Written by an actor (`impala-actor --heartbeat-file`), read by `impala-health
--actor-file` in the same container. The file holds a reading of the machine's monotonic clock,
which all its processes share and which does not depend on the date. After a reboot the clock starts
again, and older files are ignored.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

_LOG = logging.getLogger(__name__)
_INTERVAL_S = 1.0
_MAX_BYTES = 64


class Heartbeat:
    """Writes the file, at most once a second. For one thread; cheap to call often."""

    def __init__(self, path: str = "") -> None:
        """Writes to `path`; an empty path turns the heartbeat off."""
        self._path = path
        self._beaten_s = float("-inf")
        self._is_warned = False

    def beat(self) -> None:
        """Records progress of the process. An error of the disk is only a warning."""
        now_s = time.monotonic()
        if not self._path or now_s - self._beaten_s < _INTERVAL_S:
            return
        self._beaten_s = now_s
        temporary = f"{self._path}.new"
        try:
            with open(temporary, "w", encoding="ascii") as file:
                file.write(f"{now_s:.3f}\n")
            os.replace(temporary, self._path)
        except OSError as error:
            if not self._is_warned:
                _LOG.warning("no heartbeat can be written to %s: %s", self._path, error)
            self._is_warned = True


def read_age_s(path: Path) -> float:
    """Returns the age of the last beat in seconds.

    Raises:
      OSError: there is no such file.
      ValueError: it has no heartbeat since the last reboot.
    """
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES)
    age_s = time.monotonic() - float(text)
    if not age_s >= 0.0:
        raise ValueError("it is from before the machine was started")
    return age_s
