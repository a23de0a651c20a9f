"""Ctrl-C: the first asks for an ordered end, the second ends at once."""

from __future__ import annotations

import os
import signal

import pytest
from terminal import HIDES_CURSOR, SHOWS_CURSOR, run_on_terminal

from impala_common.process.exit_codes import INTERRUPTED
from impala_server.interrupts import Interrupts


class EndedError(Exception):
    """What the test's os._exit raises in place of ending the process."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_sets_the_flag_and_the_second_ends(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(code: int) -> None:
        raise EndedError(code)

    monkeypatch.setattr(os, "_exit", end)
    with Interrupts() as interrupts:
        assert not interrupts.is_set()

        signal.raise_signal(number)

        assert interrupts.is_set()
        with pytest.raises(EndedError, match=str(INTERRUPTED)):
            signal.raise_signal(number)


ENDS_AT_ONCE = """
import signal
from impala_server.interrupts import Interrupts
from impala_server.progress import ProgressDisplay
with Interrupts(), ProgressDisplay(100, "run"):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
"""


def test_second_signal_leaves_the_terminal_its_cursor() -> None:
    """Before: a live display had hidden it, and nobody showed it again."""
    shown = run_on_terminal(ENDS_AT_ONCE)

    assert shown.code == INTERRUPTED
    assert HIDES_CURSOR in shown.err
    assert shown.err.rindex(SHOWS_CURSOR) > shown.err.rindex(HIDES_CURSOR)


def test_handlers_are_put_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before[signal.SIGINT]

    assert {number: signal.getsignal(number) for number in before} == before
