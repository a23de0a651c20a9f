"""ScalarLog: the interface of a further log of numbers; OptionalLog: one that may fail."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

_LOG = logging.getLogger(__name__)


class ScalarLog(Protocol):
    """A further log of numbers by name."""

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes numbers of one step."""

    def close(self) -> None:
        """Flushes and closes the log."""


class OptionalLog:
    """A log of another program: its first error is told, and ends it."""

    def __init__(self, name: str, log: ScalarLog) -> None:
        """Wraps a log; `name` is for messages."""
        self._name = name
        self._log: ScalarLog | None = log

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """See ScalarLog."""
        if self._log is not None:
            try:
                self._log.add_scalars(scalars, step)
            except Exception as error:  # foreign programs raise any error
                self._give_up(error)

    def close(self) -> None:
        """See ScalarLog."""
        if self._log is not None:
            try:
                self._log.close()
            except Exception as error:  # as above
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        _LOG.warning(
            "%s failed and gets no further metrics of this run: %s: %s",
            self._name,
            type(error).__name__,
            " ".join(str(error).split())[:300],
        )
        self._log = None
