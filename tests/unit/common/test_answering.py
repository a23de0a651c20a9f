"""Processes that answer, and what they leave behind."""

from __future__ import annotations

import sys
import time

import pytest

from impala_common.process.answering import Answer, run_to_its_end

LEAVES_A_CHILD = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
print("answer"); print("reason", file=sys.stderr); sys.exit(3)
"""
WAITS = "import time; print('begun', flush=True); time.sleep(120)"


def test_process_left_behind_with_the_descriptors_is_not_waited_for() -> None:
    start_s = time.monotonic()

    answer = run_to_its_end([sys.executable, "-c", LEAVES_A_CHILD], 100.0)

    assert (answer.code, answer.out, answer.err) == (3, "answer\n", "reason\n")
    assert time.monotonic() - start_s < 100.0  # the child sleeps longer


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        ("", "exit code 1"),
        ("error: short\n", "error: short"),
        (
            "x" * 300 + "\n" + "y" * 300 + "\nRuntimeError: rare\n",
            "y" * 300 + "\nRuntimeError: rare",
        ),
        ("x" * 600, "x" * 500),
        ("x" * 600 + "\nRuntimeError: rare", "RuntimeError: rare"),
    ],
)
def test_reason_is_the_last_whole_lines(err: str, reason: str) -> None:
    """Seen to fail with the last 500 characters, which began in the middle of a path."""
    assert Answer(1, "", err).reason == reason


def test_late_process_is_killed() -> None:
    with pytest.raises(TimeoutError, match=r"took longer than 0\.3 s"):
        run_to_its_end([sys.executable, "-c", WAITS], 0.3)


def test_process_that_is_not_wanted_any_more_is_killed() -> None:
    answer = run_to_its_end([sys.executable, "-c", WAITS], 100.0, lambda: True)

    assert answer.code == -9
