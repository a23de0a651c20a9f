"""A study that is ended takes its training with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = "import sys, time; file = open(sys.argv[1], 'w'); print('on', file=file, flush=True)"
STUDY = """
import sys
from benchmarks.suite import training_run
training_run._call([sys.executable, "-c", sys.argv[1] + "; time.sleep(60)", sys.argv[2]], "it")
"""


@pytest.mark.timeout(50)
def test_sigterm_ends_the_training_too(tmp_path: Path) -> None:
    """The other end of the pipe is closed when the child is gone. Seen to fail before."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    study = subprocess.Popen([sys.executable, "-c", STUDY, CHILD, str(path)])
    with path.open() as pipe:
        assert pipe.readline() == "on\n"

        study.send_signal(signal.SIGTERM)

        assert pipe.read() == ""
    assert study.wait(timeout=20) == 128 + signal.SIGTERM
