"""The wait of RunningServer for the threads that a test has left."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from running_server import wait_for_threads


class Told(threading.Event):
    """An event that tells when somebody waits for it."""

    def __init__(self, is_waited_for: threading.Event) -> None:
        super().__init__()
        self._is_waited_for = is_waited_for

    def wait(self, timeout: float | None = None) -> bool:
        self._is_waited_for.set()
        return super().wait(timeout)


def test_thread_that_is_being_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail: RuntimeError, it cannot be joined before it is started."""
    before = set(threading.enumerate())
    is_listed, is_waited_for, may_end = (threading.Event() for _ in range(3))
    late = threading.Thread(target=may_end.wait, args=(20.0,), name="late")
    late._started = Told(is_waited_for)  # type: ignore[attr-defined]
    starter = threading.Thread(target=late.start, name="starter")
    start = threading._start_new_thread  # type: ignore[attr-defined]

    def start_late(function: Any, arguments: Any, *more: Any) -> Any:
        if threading.current_thread() is starter:
            is_listed.set()
            is_waited_for.wait(20.0)
            may_end.set()
        return start(function, arguments, *more)

    monkeypatch.setattr(threading, "_start_new_thread", start_late)
    starter.start()
    assert is_listed.wait(20.0)

    assert wait_for_threads(before | {starter}) == []
    starter.join(20.0)
