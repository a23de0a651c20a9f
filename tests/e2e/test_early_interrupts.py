"""Ctrl-C while an environment is made, before a command has begun its own work: no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# Says that it is being made by opening the pipe, and takes longer than any test.
SLOW = """
import gymnasium, pathlib, time

class Slow(gymnasium.Env):
    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, **unused):
        pathlib.Path("being_made").write_text("yes")
        time.sleep(300)

gymnasium.register("Slow-v0", Slow)
"""
ENV = ("--env", "slow_env:Slow-v0")
# A shell's background job ignores SIGINT, and so would all that is started from it.
START = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
from {module} import main; main()
"""


@pytest.mark.parametrize(
    ("module", "options", "code", "line"),
    [
        ("impala_server.train_cli", (), -signal.SIGINT, "interrupted"),
        ("impala_server.train_cli", ("--log-format", "json"), -signal.SIGINT, '"interrupted"'),
        ("impala_thin.cli", ("--server", "127.0.0.1:1"), 0, ""),
    ],
    ids=["train", "train-json", "thin-actor"],
)
def test_interrupt_while_an_environment_is_made_is_no_traceback(
    tmp_path: Path, module: str, options: tuple[str, ...], code: int, line: str
) -> None:
    """Seen to fail: a traceback; and of the thin actor "cannot be made here" and 78."""
    (tmp_path / "slow_env.py").write_text(SLOW)
    pipe = tmp_path / "being_made"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(module=module), *ENV, *options],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert pipe.read_text() == "yes"  # waits for the writer

        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()

    assert "Traceback" not in stderr
    assert line in stderr
    assert len(stderr.splitlines()) == bool(line)
    assert process.returncode == code
