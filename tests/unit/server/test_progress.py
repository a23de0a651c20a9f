"""Progress: the live display, plain lines, the sparkline."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console, ConsoleDimensions
from terminal import HIDES_CURSOR, run_on_terminal

from impala_common.run import metrics
from impala_common.run.sparkline import Sparkline
from impala_server.messages import LearnerStatus
from impala_server.progress import LINE_INTERVAL_S, ProgressDisplay

METRICS: dict[str, float] = {
    metrics.STEPS: 51_200,
    metrics.TIME_S: 3725.0,
    metrics.STEPS_PER_S: 1_000.0,
    metrics.UPDATES_PER_S: 160.4,
    metrics.RETURN_MEAN: 143.21,
    metrics.LENGTH_MEAN: 98.7,
    metrics.LOSS_TOTAL: 12.3456,
    metrics.LOSS_PG: -0.0123,
    metrics.LOSS_BASELINE: 25.5,
    metrics.LOSS_ENTROPY: -150.1,
    metrics.ENTROPY: 0.6543,
    metrics.POLICY_LAG_MEAN: 1.25,
    metrics.POLICY_LAG_MAX: 4,
    metrics.QUEUE_FILL: 0.62,
    metrics.POLICY_VERSION: 1_600,
    metrics.ACTORS_CONNECTED: 2,
    metrics.UNROLLS_ACCEPTED: 12_800,
    metrics.UNROLLS_STALE: 3,
    metrics.UNROLLS_INVALID: 4,
    metrics.RSS_BYTES: 512 * 2**20,
}
STATUS = LearnerStatus(state="RUNNING", last_checkpoint="step-000000048000", metrics=METRICS)


def with_metrics(state: str = "RUNNING", **values: float) -> LearnerStatus:
    """Returns STATUS with some metrics changed."""
    return dataclasses.replace(STATUS, state=state, metrics={**METRICS, **values})


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make_display(
    width: int = 100, is_terminal: bool = False
) -> tuple[ProgressDisplay, io.StringIO, FakeClock]:
    file, clock = FakeTerminal() if is_terminal else io.StringIO(), FakeClock()
    console = Console(file=file, width=width, _environ={"TERM": "xterm"})
    return ProgressDisplay(200_000, "CartPole-v1 [bold]", console, clock), file, clock


def rendered(display: ProgressDisplay, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(display.render())
    return file.getvalue()


@pytest.mark.parametrize("width", [50, 64, 80, 100])
def test_render_shows_everything_within_the_width(width: int) -> None:
    display, _, _ = make_display(width)
    for step in range(100):
        display.update(with_metrics(**{metrics.RETURN_MEAN: float(step)}))
    display.update(STATUS)

    text = rendered(display, width)

    for part in (
        "CartPole-v1 [bold]  RUNNING",
        "51,200 / 200,000 steps  26 %",
        "1:02:05 elapsed, 0:02:28 left",
        "143.2",
        "98.7",
        "1,000",
        "160.4",
        "12.35",
        "-0.0123",
        "25.5",
        "0.6543 nats",
        "1.2 mean, 4 max",
        "██████░░░░ 62%",
        "version 1,600",
        "2 connected",
        "12,800 accepted",
        "step-000000048000",
        "512 MiB",
        "▁",
        "█",
    ):
        assert part in text
    assert re.search(r"rejected +7", text)
    assert "-150.1" not in text, "the loss term is no entropy"
    assert "…" not in text
    assert {len(line) for line in text.splitlines()} == {width}


@pytest.mark.parametrize(
    "values",
    [
        {},
        dict.fromkeys(METRICS, math.nan),
        dict.fromkeys(METRICS),
        {metrics.STEPS: 10**12, metrics.STEPS_PER_S: 0.0},
        {metrics.STEPS: 1, metrics.STEPS_PER_S: 1e-9, metrics.QUEUE_FILL: 7.0},
    ],
    ids=["empty", "nan", "none", "beyond the end", "slow"],
)
def test_render_of_odd_status_does_not_fail(values: dict[str, float | None]) -> None:
    display, _, _ = make_display()

    display.update(LearnerStatus(state="RUNNING", metrics=values))

    assert "steps" in rendered(display, 80)
    assert "steps" in display.line()


def test_findings_are_shown_whole_in_the_display_and_by_name_in_a_line() -> None:
    display, _, _ = make_display()
    finding = "return fell: the mean return was 500 and is 9.3. Go back to the checkpoint best"

    display.update(dataclasses.replace(STATUS, findings=(finding,)))

    assert finding in rendered(display, 120)
    assert display.line().endswith("(return fell)")


def test_return_of_long_ago_is_not_shown() -> None:
    """Planted: the last return repeated for ever."""
    display, _, _ = make_display()

    display.update(with_metrics(**{metrics.STEPS_SINCE_EPISODE: 880_000}))

    for text in (rendered(display, 100), display.line()):
        assert "none for 880,000 steps" in text
        assert "143.2" not in text


def test_render_before_there_is_a_status_says_what_is_awaited() -> None:
    display, _, _ = make_display()
    display.wait("starting: learner")
    display.update(None)

    text = rendered(display, 80)

    assert "STARTING" in text
    assert "starting: learner" in text


def test_update_without_terminal_prints_a_line_now_and_then() -> None:
    """Seen to fail with a line printed at each update."""
    display, file, clock = make_display(width=40)
    display.start()
    for _ in range(11):
        display.update(STATUS)
        clock.now_s += LINE_INTERVAL_S / 5
    display.message("actor-0 was restarted")

    lines = file.getvalue().splitlines()

    assert len(lines) == 4
    assert lines[0][8:] == (
        " steps 51,200 (26 %) 1,000/s return 143.2 length 98.7 loss 12.35 lag 1.2 actors 2"
    )
    assert lines[3][8:] == " actor-0 was restarted"
    assert "\x1b" not in file.getvalue()


def test_stop_without_terminal_prints_the_last_status() -> None:
    display, file, _ = make_display()
    with display:
        display.update(STATUS)
        display.update(with_metrics("STOPPED", **{metrics.STEPS: 200_000}))

    assert "stopped steps 200,000 (100 %)" in file.getvalue().splitlines()[-1]


def test_stop_without_terminal_prints_no_line_twice() -> None:
    """Seen to fail with the last status printed by stop in any case."""
    display, file, clock = make_display()
    with display:
        display.update(STATUS)
        clock.now_s += LINE_INTERVAL_S
        display.update(with_metrics("STOPPED"))
    display.stop()

    assert len(file.getvalue().splitlines()) == 2
    assert file.getvalue().count("stopped") == 1


def test_terminal_shows_messages_and_gives_the_cursor_back() -> None:
    display, file, _ = make_display(is_terminal=True)
    with display:
        display.wait("starting")
        display.message("hello [red]")
        display.update(STATUS)

    text = file.getvalue()
    assert "hello [red]" in text
    assert "51,200 / 200,000 steps" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    ("is_terminal", "environment"),
    [(False, {"FORCE_COLOR": "1", "TERM": "xterm"}), (True, {"TERM": "dumb"})],
)
def test_where_nothing_can_be_drawn_anew_there_are_plain_lines(
    is_terminal: bool, environment: dict[str, str]
) -> None:
    """Before: every picture went into a log of CI, and a dumb terminal showed nothing."""
    file = FakeTerminal() if is_terminal else io.StringIO()
    display = ProgressDisplay(200_000, "run", Console(file=file, _environ=environment), FakeClock())
    with display:
        display.update(STATUS)

        assert "steps 51,200 (26 %)" in file.getvalue()
    assert "\x1b[?25l" not in file.getvalue()
    assert len(file.getvalue().splitlines()) == 1


# Prints while a display is on; "results" as a script of a user does.
PRINTS = """
import sys
from rich.console import Console
from impala_agent.shipped_callbacks import ProgressBar
from impala_server.progress import ProgressDisplay
class Progress:
    total_steps, steps, metrics = 100, 0, {}
which = {"display": ProgressDisplay(100, "run"), "bar": ProgressBar()}[sys.argv[1]]
which.start() if sys.argv[1] == "display" else which.on_start(Progress())
print("results")
which.stop() if sys.argv[1] == "display" else which.on_end(Progress(), None)
"""


@pytest.mark.parametrize("which", ["display", "bar"])
def test_what_a_script_prints_while_it_trains_goes_into_its_file(which: str) -> None:
    """`python script.py > results.txt` on a terminal. Before: the file stayed empty."""
    shown = run_on_terminal(PRINTS, which)

    assert (shown.code, shown.out) == (0, b"results\n")
    assert HIDES_CURSOR in shown.err, "there was a live display"


def test_bar_is_not_drawn_again_and_again_into_a_file() -> None:
    """Before, with FORCE_COLOR: each of its pictures, and codes that move the cursor."""
    environment = {**os.environ, "TERM": "xterm", "FORCE_COLOR": "1"}
    command = [sys.executable, "-c", PRINTS, "bar"]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=True)

    assert b"\x1b[?25" not in done.stderr
    assert b"0/100" in done.stderr


def test_render_can_be_exported_as_a_picture() -> None:
    display, _, _ = make_display()
    display.update(STATUS)
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(display.render())

    assert console.export_svg(title="impala-train").startswith("<svg")


@pytest.mark.parametrize("num_values", [0, 1, 7, 8, 9, 255, 256, 257, 5000, 100_000])
def test_history_is_bounded_and_keeps_its_course(num_values: int) -> None:
    history = Sparkline(capacity=256)

    for value in range(num_values):
        history.append(float(value))

    line = history.draw(8)
    assert len(line) == min(num_values, 8)
    assert list(line) == sorted(line)
    if num_values >= 8:
        assert (line[0], line[-1]) == ("▁", "█")
    assert len(history._means) < 256


def test_sparkline_of_constant_value_is_flat() -> None:
    history = Sparkline()
    for _ in range(20):
        history.append(3.0)

    assert set(history.draw(10)) == {"▄"}


def test_live_display_begins_on_a_clean_screen_when_the_terminal_is_resized() -> None:
    """Seen to fail with rich's own Live, which goes back over as many lines as it had drawn."""
    file = FakeTerminal()
    console = Console(file=file, width=100, height=40, _environ={"TERM": "xterm"})
    with ProgressDisplay(200_000, "run", console, FakeClock()) as display:
        display.update(STATUS)
        display.message("before")
        assert "\x1b[2J" not in file.getvalue()
        file.truncate(0)

        console.size = ConsoleDimensions(60, 30)
        display.message("after")

        text = file.getvalue()
        assert text.index("\x1b[2J") < text.index("after")
        assert "\x1b[1A" not in text, "the cursor must not go up: lines have been broken anew"
        file.truncate(0)
        display.message("again")
        assert "\x1b[2J" not in file.getvalue()
