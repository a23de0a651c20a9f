"""Interrupts: the first Ctrl-C or SIGTERM asks for an ordered end, the second ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from impala_common.process.exit_codes import INTERRUPTED


class Interrupts:
    """A context in which signals set a flag; it restores the handlers at its end."""

    def __init__(self) -> None:
        """Handles signals once entered."""
        self._event = threading.Event()
        self._previous: dict[int, Any] = {}  # Any: what signal.signal returned

    def is_set(self) -> bool:
        """Whether an ordered end was asked for."""
        return self._event.is_set()

    def __enter__(self) -> Interrupts:
        """Takes over SIGINT and SIGTERM (on the main thread; elsewhere they stay as they are)."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restores the handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, unused_number: int, unused_frame: FrameType | None) -> None:
        if self._event.is_set():
            _show_cursor()
            os._exit(INTERRUPTED)  # children see their pipes close, and save a checkpoint
        self._event.set()


def _show_cursor() -> None:
    """Gives the terminal its cursor back, which a live display has hidden, on a line of its own."""
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\n")
