"""What a program writes to a terminal that is its stderr."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import NamedTuple

HIDES_CURSOR = b"\x1b[?25l"
SHOWS_CURSOR = b"\x1b[?25h"


class Shown(NamedTuple):
    """How a program ended: its exit code, its stdout, and what the terminal was sent."""

    code: int
    out: bytes
    err: bytes


def run_on_terminal(program: str, *arguments: str) -> Shown:
    """Runs Python code whose stdout is a pipe and whose stderr is a terminal."""
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            stderr=slave,
            env={**os.environ, "TERM": "xterm"},
            timeout=60,
            check=False,
        )
        return Shown(done.returncode, done.stdout, os.read(master, 1 << 16))
    finally:
        os.close(slave)
        os.close(master)
