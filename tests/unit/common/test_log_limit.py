"""LogLimit bounds the lines of each place in the code and counts suppressed ones."""

from __future__ import annotations

import logging

from impala_common.process.log_limit import BURST, LogLimit


class _Log:
    """A logger behind a LogLimit whose clock the test turns."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.lines: list[str] = []
        self.log = logging.Logger("test")
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        handler.addFilter(LogLimit(lambda: self.now_s))
        self.log.addHandler(handler)


def test_place_that_says_too_much_is_cut_to_a_line_a_second_and_says_so() -> None:
    """Seen to fail without the filter."""
    log = _Log()

    def say(number: int) -> None:
        for _ in range(number):
            log.log.warning("no message from %s", "somebody")

    say(10_000)
    assert len(log.lines) == BURST
    log.now_s += 1.0
    say(100)
    assert len(log.lines) == BURST + 1
    assert log.lines[-1] == "no message from somebody (9950 more like it since the last one)"
    log.now_s += 1000.0
    say(BURST)
    assert len(log.lines) == 2 * BURST + 1


def test_one_place_costs_another_nothing() -> None:
    log = _Log()
    for _ in range(1000):
        log.log.warning("much")

    log.log.warning("important")

    assert log.lines[-1] == "important"


def test_text_with_percent_signs_survives_the_count() -> None:
    log = _Log()
    for _ in range(BURST + 2):
        log.log.warning("100%% of %d", 3)
        last = log.lines[-1]
    assert last == "100% of 3"
