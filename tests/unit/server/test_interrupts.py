"""Ctrl-C: the first asks for an ordered end, the second ends at once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

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
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", ENDS_AT_ONCE],
            stderr=slave,
            env={**os.environ, "TERM": "xterm"},
            timeout=60,
            check=False,
        )
        shown = os.read(master, 1 << 16)
    finally:
        os.close(slave)
        os.close(master)

    assert done.returncode == INTERRUPTED
    assert b"\x1b[?25l" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")


def test_handlers_are_put_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before[signal.SIGINT]

    assert {number: signal.getsignal(number) for number in before} == before
