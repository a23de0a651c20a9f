"""StopSignals: SIGINT and SIGTERM for actors and evaluators; the first asks for an ordered end.

Used by impala-actor and impala-evaluator, on their main threads.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import NoReturn

from impala_actor.acting.signal_guard import set_handlers
from impala_common.process.exit_codes import INTERRUPTED, OK
from impala_common.process.parent import find_parent, is_parent_gone
from impala_rl.standard_streams import leave

_LOG = logging.getLogger(__name__)
_ABANDON_S = 3.0
_LEAVE_S = 4.5


class StopSignals(threading.Event):
    """Set by the first SIGINT or SIGTERM: end in order, within five seconds. Second: at once.

    Calls that wait for the learner are cancelled after `_ABANDON_S`; if a step of the environment
    does not return, the process ends without it after `_LEAVE_S`.
    """

    def __init__(self) -> None:
        """Installs handlers of both signals."""
        super().__init__()
        self._abandon: Callable[[], None] | None = None
        self.reclaim()

    def reclaim(self) -> None:
        """Takes over both signals again, from native code that an environment has called."""
        set_handlers({signal.SIGINT: self._on_signal, signal.SIGTERM: self._on_signal})

    def begin(self, abandon: Callable[[], None]) -> None:
        """Tells that from now on an ordered end is needed, and how to cancel calls."""
        self._abandon = abandon

    def _on_signal(self, unused_number: int, unused_frame: object) -> None:
        if self.is_set():
            os._exit(INTERRUPTED)
        if self._abandon is None:
            os._exit(OK)  # still importing or connecting: there is no session to end
        self.set()
        for after_s, work in ((_ABANDON_S, self._abandon), (_LEAVE_S, _leave)):
            timer = threading.Timer(after_s, work)
            timer.daemon = True
            timer.start()


def reclaim_signals(stop: threading.Event) -> None:
    """Takes SIGINT and SIGTERM back from the environment, where `stop` is a command's."""
    if isinstance(stop, StopSignals):
        stop.reclaim()


def end_process(code: int) -> NoReturn:
    """Ends this process after all work is done and closed.

    Skips the interpreter's shutdown: gRPC's part of it took seven seconds (seed 1 of `make
    faults`), and five are promised. Later signals do not change the exit code.
    """
    set_handlers({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN})
    logging.shutdown()
    leave(code)


def stop_without_parent(stop: threading.Event) -> None:
    """Ends this process when its parent is gone; at once if it is gone already."""
    parent = find_parent()
    if is_parent_gone(parent):  # it died while this process was importing: there is no session
        _LOG.warning("the process that started this one is gone: leaving")
        end_process(INTERRUPTED)

    def watch() -> None:
        while not stop.wait(1.0):
            if is_parent_gone(parent):
                stop.set()
        if is_parent_gone(parent):
            threading.Event().wait(10.0)  # time for an ordered end
            os._exit(INTERRUPTED)

    threading.Thread(target=watch, name="impala-parent-watch", daemon=True).start()


def _leave() -> None:
    _LOG.warning("the environment did not return from a step: leaving without it")
    os._exit(OK)
