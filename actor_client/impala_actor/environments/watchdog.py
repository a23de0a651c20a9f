"""EnvironmentWatchdog: ends the process when an environment does not return.

An environment runs on the actor's main thread (or in a process that this thread waits for), and
Python cannot end a thread from outside. So a hang ends the process: it logs a message and the
stacks of all threads, kills its children, and exits with code 75, which asks for a restart.
Messages without a verdict are lost, as after any death.
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from impala_common.process.exit_codes import TEMPORARY

_LOG = logging.getLogger(__name__)


class EnvironmentWatchdog:
    """A context manager that the actor's thread enters for every call of its environment.

    Owned by that thread; its own thread, `impala-watchdog`, checks the time. Entering and leaving
    cost an assignment each.
    """

    def __init__(self, timeout_s: float, on_hang: Callable[[str], None] | None = None) -> None:
        """Starts the watching thread, unless `timeout_s` is 0.

        Args:
          timeout_s: seconds a call may take; 0: no limit.
          on_hang: called with the message in place of ending the process; for tests.
        """
        self._timeout_s = timeout_s
        self._on_hang = on_hang or end_hung_process
        self._since_s = 0.0  # start of the call under way; 0: no call
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None
        if timeout_s > 0:
            self._thread = threading.Thread(target=self._watch, name="impala-watchdog", daemon=True)
            self._thread.start()

    def __enter__(self) -> None:
        """Marks the start of a call."""
        self._since_s = time.monotonic()

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_trace: TracebackType | None,
    ) -> None:
        """Marks the end of the call."""
        self._since_s = 0.0

    def close(self) -> None:
        """Ends the watching thread."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        last_look_s = time.monotonic()
        while not self._is_closed.wait(min(1.0, self._timeout_s / 4)):
            now_s, since_s = time.monotonic(), self._since_s
            # A process that was suspended has not hung: the time starts again.
            was_stopped = now_s - last_look_s > self._timeout_s / 2 + 1.0
            last_look_s = now_s
            if was_stopped and since_s:
                self._since_s = now_s
            elif since_s and now_s - since_s > self._timeout_s:
                self._on_hang(
                    f"the environment has not returned for {self._timeout_s:g} s "
                    "(--env-timeout-s): this process ends"
                )
                return


def end_hung_process(text: str) -> None:
    """Ends this process and its children, after a message and the stacks of all threads."""
    _LOG.error("%s; where its threads are stands below", text)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    for child in multiprocessing.active_children():  # slots with env_backend async
        child.kill()
    sys.stderr.write(f"error: {text}\n")
    sys.stderr.flush()
    os._exit(TEMPORARY)
