"""The end of impala-actor: exit code, complete output, and no wait for the interpreter."""

from __future__ import annotations

import subprocess
import sys
import time

CODE = """
import atexit, sys, threading, time
import impala_actor.cli as cli
atexit.register(time.sleep, 20)
threading.Thread(target=time.sleep, args=(20,)).start()  # one of a library's, say
def run(argv):
    sys.stdout.write("said"); sys.stderr.write("complained")
    return 69
cli.run = run
cli.main([])
"""


def test_actor_that_is_done_ends_at_once_with_its_code() -> None:
    """Seen to fail with sys.exit, which waits for what libraries leave behind."""
    start_s = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (69, "said", "complained")
    assert time.monotonic() - start_s < 15
