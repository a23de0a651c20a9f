"""StopSignals: SIGINT and SIGTERM for actors and evaluators; the first asks for an ordered end.

Used by impala-actor and impala-evaluator, on their main threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from impala_actor.acting.signal_guard import set_handlers
from impala_common.process.exit_codes import INTERRUPTED, OK

_LOG = logging.getLogger(__name__)
_ABANDON_S = 3.0
_LEAVE_S = 4.5


class StopSignals(threading.Event):
    """Set by the first SIGINT or SIGTERM: leave in order, within five seconds. Second: at once.

    Calls that wait for a learner which does not answer are cut off after `_ABANDON_S`; an
    environment that does not return from a step is left behind after `_LEAVE_S`.
    """

    def __init__(self) -> None:
        """Takes over both signals."""
        super().__init__()
        self._abandon: Callable[[], None] | None = None
        self.reclaim()

    def reclaim(self) -> None:
        """Takes over both signals again, from native code that an environment has called."""
        set_handlers({signal.SIGINT: self._on_signal, signal.SIGTERM: self._on_signal})

    def begin(self, abandon: Callable[[], None]) -> None:
        """Says that from now on there is something to leave, and how to break off calls."""
        self._abandon = abandon

    def _on_signal(self, unused_number: int, unused_frame: object) -> None:
        if self.is_set():
            os._exit(INTERRUPTED)
        if self._abandon is None:
            os._exit(OK)  # still importing or looking for the learner: nothing to hand back
        self.set()
        for after_s, work in ((_ABANDON_S, self._abandon), (_LEAVE_S, _leave)):
            timer = threading.Timer(after_s, work)
            timer.daemon = True
            timer.start()


def end_process(code: int) -> NoReturn:
    """Ends this process, all being done and closed.

    The interpreter takes no part in it: gRPC's share of its end was seen to take seven seconds
    (seed 1 of `make faults`), and five are promised. Signals that still come do not change the
    code.
    """
    set_handlers({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN})
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody may read any more
            stream.flush()
    os._exit(code)


def stop_without_parent(stop: threading.Event) -> None:
    """Ends this process when the one that started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while not stop.wait(1.0):
            if os.getppid() != parent:
                stop.set()
        if os.getppid() != parent:
            threading.Event().wait(10.0)  # time to leave in order, but not for ever
            os._exit(INTERRUPTED)

    threading.Thread(target=watch, name="impala-parent-watch", daemon=True).start()


def _leave() -> None:
    _LOG.warning("the environment did not return from a step: leaving without it")
    os._exit(OK)
