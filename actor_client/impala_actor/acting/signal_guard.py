"""Keeps the signal handlers of a command against environments that install their own.

Simulators take SIGINT and SIGTERM for themselves, and a command that started one could no longer
be ended. `guard_signals` makes `signal.signal` ignore such requests; handlers that native code
has set are replaced by `set_handlers`, which a command calls again from time to time.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from typing import Any

_LOG = logging.getLogger(__name__)
_set = signal.signal
_guarded: set[int] = set()


def guard_signals(*numbers: int) -> None:
    """From now on these signals keep the handlers that they have; idempotent."""
    _guarded.update(numbers)
    signal.signal = _refuse  # type: ignore[assignment]


def set_handlers(handlers: Mapping[int, Any]) -> None:
    """Installs handlers past the guard, and unblocks their signals; on the main thread only."""
    for number, handler in handlers.items():
        _set(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)


def _refuse(number: int, handler: Any) -> Any:  # Any: handlers have many types
    """Stands in for signal.signal: leaves guarded signals alone, as if that had worked."""
    if number not in _guarded:
        return _set(number, handler)
    _LOG.warning("the environment's handler of %s is ignored", signal.Signals(number).name)
    return signal.getsignal(number)
