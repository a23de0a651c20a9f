"""What a client says while it waits for a server."""

from __future__ import annotations

import logging

import pytest

from impala_thin import ServerUnavailableError, attempts
from impala_thin.attempts import Attempts
from impala_thin.hello import ClientSettings


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(attempts, "time", clock)
    return clock


def test_wait_is_told_at_once_and_every_ten_seconds(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen to fail: a client without a time limit waited for ever without a word."""
    waits = Attempts(ClientSettings(server="127.0.0.1:1"))
    with caplog.at_level(logging.WARNING):
        for second in range(26):
            clock.now_s = 100.0 + second
            waits.begin()
            waits.next_wait_s("nothing listens")

    assert caplog.messages == ["waiting for the policy server at 127.0.0.1:1: nothing listens"] * 3


def test_wait_ends_with_what_was_tried_and_why(clock: Clock) -> None:
    waits = Attempts(ClientSettings(server="127.0.0.1:1", connect_timeout_s=5.0))
    waits.next_wait_s("not yet")
    clock.now_s += 6.0

    with pytest.raises(ServerUnavailableError, match=r"127\.0\.0\.1:1 within 5 s: nothing listens"):
        waits.next_wait_s("nothing listens")
