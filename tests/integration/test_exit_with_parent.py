"""--exit-with-parent: commands end when the process that started them is gone, however early."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(90)

ASKED = ["--exit-with-parent", "--connect-timeout-s", "0"]
SERVER = ["--server", "127.0.0.1:1", "--env", "CartPole-v1", *ASKED]
COMMANDS = {
    "impala_actor.cli": SERVER,
    "impala_actor.evaluator_cli": SERVER,
    "impala_policy_server.cli": ["--learner", "127.0.0.1:1", "--port", "0", *ASKED],
}

# Starts a command as impala-train does, and is gone before that has imported anything.
STARTER = """
import os, sys
from pathlib import Path
from impala_server.local.process import LocalProcess
LocalProcess("it", sys.argv[2:], Path(sys.argv[1] + "/log")).start()
open(sys.argv[1] + "/starter", "w").close()  # returns once the command reads it
os._exit(0)
"""

# Waits until its parent is gone, then runs the command. "/end" is open for as long as it lives.
LATE = """
import importlib, os, sys
folder, module, *arguments = sys.argv[1:]
parent = os.getppid()
end = open(folder + "/end", "w")
end.write(f"{os.getpid()}\\n"); end.flush()
open(folder + "/starter").read()
while os.getppid() == parent:
    pass
importlib.import_module(module).main(arguments)
"""


def read_to_end(descriptor: int, timeout_s: float) -> bytes | None:
    """Returns all that is written to a pipe before its writers are gone; None: they stay."""
    deadline_s, text = time.monotonic() + timeout_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline_s - time.monotonic())):
            if not (piece := os.read(descriptor, 1024)):
                return text
            text += piece
    with contextlib.suppress(ValueError, ProcessLookupError):
        os.kill(int(text), signal.SIGKILL)
    return None


@pytest.mark.parametrize("module", COMMANDS)
def test_command_whose_parent_died_while_it_was_importing_ends(tmp_path: Path, module: str) -> None:
    """Before: it took whoever had adopted it for its parent, and never ended."""
    for name in ("starter", "end"):
        os.mkfifo(tmp_path / name)
    end = os.open(tmp_path / "end", os.O_RDONLY | os.O_NONBLOCK)
    command = [sys.executable, "-c", LATE, str(tmp_path), module, *COMMANDS[module]]

    started = subprocess.run(
        [sys.executable, "-c", STARTER, str(tmp_path), *command], timeout=60, check=True
    )
    said = read_to_end(end, 40.0)
    os.close(end)

    assert started.returncode == 0
    log = (tmp_path / "log").read_text()
    assert said is not None, f"{module} outlived its parent: {log}"
    assert "Traceback" not in log
    assert "is gone" in log
