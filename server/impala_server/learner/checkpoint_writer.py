"""CheckpointWriter: copies the training state between two updates and writes it on a thread.

The controller asks and goes on; whoever must know that a checkpoint is durable
waits for the ticket, with a bound. One save is under way at a time. Requests
that come meanwhile are met by one more, whose state is newer than all of them.
A save that fails is counted and does not end anything: training goes on, and
the next one is tried as if nothing had been.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from impala_common.errors import (
    AlreadyExistsError,
    CapacityError,
    CheckpointError,
    CheckpointWriteError,
    ImpalaError,
)
from impala_common.run.checkpoints import CheckpointStore
from impala_server.learner.training_state import StateSnapshot

_LOG = logging.getLogger(__name__)
_NICENESS = 10
_MAX_WAITING = 64
SAVE_TIMEOUT_S = 60.0
"""How long a ticket is waited for: less than an administrator's call may take."""


class Saved(NamedTuple):
    """A durable checkpoint.

    Attributes:
      name: its folder's name.
      is_new: False where nothing had changed since it was written.
      policy_version: of its weights.
      trained_steps: when its state was taken.
    """

    name: str
    is_new: bool
    policy_version: int
    trained_steps: int


class SaveTicket:
    """One request for a checkpoint; any number of threads may ask it."""

    def __init__(self) -> None:
        """Begins without a result."""
        self._is_done = threading.Event()
        self._result: Saved | ImpalaError | None = None
        self._deadline_s = time.monotonic() + SAVE_TIMEOUT_S

    def poll(self) -> Saved | None:
        """Returns what was saved, or None while it is not known.

        Raises:
          ImpalaError: it could not be saved, or is not durable in time.
        """
        if not self._is_done.is_set():
            if time.monotonic() < self._deadline_s:
                return None
            raise CheckpointWriteError(
                f"the checkpoint is not on disk after {SAVE_TIMEOUT_S:g} s and may or may not "
                "get there: is the disk slow or full?"
            )
        assert self._result is not None
        if isinstance(self._result, ImpalaError):
            raise self._result
        return self._result

    def wait(self) -> Saved:
        """Returns what was saved once it is durable; raises as `poll`, in bounded time."""
        while (saved := self.poll()) is None:
            self._is_done.wait(max(0.0, self._deadline_s - time.monotonic()))
        return saved

    def settle(self, result: Saved | ImpalaError) -> None:
        """Says how it ended; called once, by the writer."""
        self._result = result
        self._is_done.set()


class CheckpointWriter(threading.Thread):
    """Named `impala-checkpoint`; started and joined by the controller.

    Attributes:
      last: the newest checkpoint without a name of its own that this thread wrote.
      last_s: when that was durable, by time.monotonic.
      num_failures: saves that failed.
    """

    def __init__(
        self,
        store: CheckpointStore,
        take_snapshot: Callable[[], StateSnapshot],
        policy_version: Callable[[], int],
        record: Callable[..., None],
    ) -> None:
        """Makes the thread; `start` runs it.

        Args:
          store: where checkpoints go.
          take_snapshot: copies the state between two updates; called on this thread.
          policy_version: of the newest weights.
          record: takes an event of the history and its fields.
        """
        super().__init__(name="impala-checkpoint")
        self._store = store
        self._take_snapshot = take_snapshot
        self._policy_version = policy_version
        self._record = record
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, SaveTicket] = OrderedDict()  # by name; "" for none
        self._is_closed = False
        self.last = Saved("", False, -1, 0)
        self.last_s = time.monotonic()
        self.num_failures = 0

    def request(self, name: str = "") -> SaveTicket:
        """Asks for a checkpoint of the state as it is now or later; does not wait.

        Args:
          name: its name; empty: the writer gives it one, and where nothing has changed since
            the last such one, that is it.

        Raises:
          InvalidRequestError, AlreadyExistsError, CapacityError: the name is not to be had.
          CheckpointWriteError: the learner is ending.
        """
        if name:
            self._store.require_free(name)
        with self._changed:
            if self._is_closed:
                raise CheckpointWriteError("the learner is ending: no more checkpoints")
            ticket = self._waiting.get(name)
            if ticket is not None and name:
                raise AlreadyExistsError(f"a checkpoint {name!r} is being written: choose another")
            if ticket is None:
                if len(self._waiting) >= _MAX_WAITING:
                    raise CapacityError(f"{_MAX_WAITING} checkpoints wait to be written")
                ticket = self._waiting[name] = SaveTicket()
                self._changed.notify_all()
            return ticket

    def close(self, timeout_s: float) -> None:
        """Writes what was asked for, and ends the thread; waits for that with a bound."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self.join(timeout_s)
        if self.is_alive():
            _LOG.error("the disk has not taken a checkpoint for %g s: it is left behind", timeout_s)

    def run(self) -> None:
        """Writes until closed."""
        _give_way()
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                # Off the list before the state is taken: a later request wants a later state.
                name, ticket = self._waiting.popitem(last=False)
            ticket.settle(self._save(name))

    def _save(self, name: str) -> Saved | ImpalaError:
        """Returns what was saved, or why nothing was."""
        if not name and self._policy_version() == self.last.policy_version:
            return self.last._replace(is_new=False)
        try:
            return self._write(name)
        except (CheckpointError, OSError) as error:
            failure: ImpalaError = CheckpointWriteError(str(error))
            _LOG.error("training goes on without this checkpoint: %s", error)
        except ImpalaError as error:
            failure = error  # the name is taken meanwhile
        except Exception as error:  # a bug must not end a run that trains well
            _LOG.exception("training goes on without this checkpoint")
            failure = CheckpointWriteError(f"{type(error).__name__} in the learner: {error}")
        self.num_failures += 1
        return failure

    def _write(self, name: str) -> Saved:
        tensors, state = self._take_snapshot()
        counters = state["counters"]
        version, steps = counters["policy_version"], counters["trained_steps"]
        self._record("checkpoint_begin", version=version, trained_steps=steps)
        try:
            path = self._store.save(steps, tensors, state, name)
        except BaseException:
            self._record("checkpoint_failed", version=version, trained_steps=steps)
            raise
        self._record("checkpoint_commit", name=path.name, version=version, trained_steps=steps)
        saved = Saved(path.name, True, version, steps)
        if not name:
            self.last, self.last_s = saved, time.monotonic()
        return saved


def _give_way() -> None:
    """Lets this thread have what processor time the updates leave over, where that can be said."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
