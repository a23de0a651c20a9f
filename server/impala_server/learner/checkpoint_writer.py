"""CheckpointWriter: copies the training state between two updates and writes it on a thread.

The controller requests a save and goes on; callers that need a durable checkpoint wait for the
ticket, with a time limit. One save is under way at a time. All requests made meanwhile share the
next save, whose state is newer than any of them. A failed save is counted; training goes on, and
the next save is tried as usual.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xxhash

from impala_common.errors import (
    AlreadyExistsError,
    CapacityError,
    CheckpointError,
    CheckpointUnreadableError,
    CheckpointWriteError,
    ImpalaError,
)
from impala_common.run.checkpoints import CheckpointStore, Tensors
from impala_server.learner.training_state import StateSnapshot

_LOG = logging.getLogger(__name__)
_NICENESS = 10
_MAX_WAITING = 64
SAVE_TIMEOUT_S = 60.0
"""Longest wait for a ticket, in seconds: less than the deadline of an administrator's call."""


class Saved(NamedTuple):
    """A durable checkpoint.

    Attributes:
      name: its folder's name.
      is_new: False if it was written before, from the same state.
      policy_version: of its weights.
      trained_steps: when its state was taken.
    """

    name: str
    is_new: bool
    policy_version: int
    trained_steps: int


class SaveTicket:
    """One request for a checkpoint; any number of threads may wait for it."""

    def __init__(self) -> None:
        """Starts without a result."""
        self._is_done = threading.Event()
        self._result: Saved | ImpalaError | None = None
        self._deadline_s = time.monotonic() + SAVE_TIMEOUT_S

    def poll(self) -> Saved | None:
        """Returns the checkpoint, or None while the save is not finished.

        Raises:
          ImpalaError: the save failed, or took too long.
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
        """Waits, with a time limit, and returns the durable checkpoint; raises as `poll`."""
        while (saved := self.poll()) is None:
            self._is_done.wait(max(0.0, self._deadline_s - time.monotonic()))
        return saved

    def settle(self, result: Saved | ImpalaError) -> None:
        """Sets the result; called once, by the writer."""
        self._result = result
        self._is_done.set()


class CheckpointWriter(threading.Thread):
    """Named `impala-checkpoint`; started and joined by the controller.

    Attributes:
      last: the newest checkpoint without a given name that this thread wrote.
      last_s: time at which it became durable, by time.monotonic.
      num_failures: saves that failed.
      num_unreadable: saves that failed since nobody could read the checkpoint again.
      alarm: why the newest save could not be read again; empty after one that could.
    """

    def __init__(
        self,
        store: CheckpointStore,
        take_snapshot: Callable[[], StateSnapshot],
        record: Callable[..., None],
    ) -> None:
        """Makes the thread; `start` runs it.

        Args:
          store: writes the checkpoints.
          take_snapshot: copies the state between two updates; called on this thread.
          record: takes an event of the history and its fields.
        """
        super().__init__(name="impala-checkpoint")
        self._store = store
        self._take_snapshot = take_snapshot
        self._record = record
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, SaveTicket] = OrderedDict()  # by name; "" for none
        self._is_closed = False
        self.last = Saved("", False, -1, 0)
        self.last_s = time.monotonic()
        self._last_digest = 0
        self.num_failures = 0
        self.num_unreadable = 0
        self.alarm = ""

    def request(self, name: str = "") -> SaveTicket:
        """Requests a checkpoint of the present or a later state; does not wait.

        Args:
          name: its name. Empty: the writer names it, or returns the last one if the state is the
            same.

        Raises:
          InvalidRequestError, AlreadyExistsError, CapacityError: the name cannot be used.
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

    def save_last(self, timeout_s: float) -> CheckpointWriteError | None:
        """Requests a last checkpoint and closes; returns why it could not be written, or None.

        None, too, where the disk has not answered in time.
        """
        ticket = self.request()
        self.close(timeout_s)
        try:
            ticket.poll()
        except ImpalaError as error:
            newest = self.last.name or "the one before this start, if there is one"
            return CheckpointWriteError(
                "the last checkpoint could not be written, so what was trained since the newest "
                f"is lost; the newest is {newest} ({error})"
            )
        return None

    def close(self, timeout_s: float) -> None:
        """Writes what was requested and ends the thread; waits for it with a time limit."""
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
                # Remove the ticket before copying the state: a later request needs a later state.
                name, ticket = self._waiting.popitem(last=False)
            ticket.settle(self._save(name))

    def _save(self, name: str) -> Saved | ImpalaError:
        """Returns what was saved, or why nothing was."""
        try:
            saved = self._write(name)
        except CheckpointUnreadableError as error:
            failure: ImpalaError = error
            self.num_unreadable += 1
            self.alarm = f"checkpoints cannot be read again, so a restart loses progress: {error}"
            _LOG.critical("%s", self.alarm)
        except (CheckpointError, OSError) as error:
            failure = CheckpointWriteError(str(error))
            _LOG.error("training goes on without this checkpoint: %s", error)
        except ImpalaError as error:
            failure = error  # another save took the name meanwhile
        except Exception as error:  # a bug in saving must not end the training
            _LOG.exception("training goes on without this checkpoint")
            failure = CheckpointWriteError(f"{type(error).__name__} in the learner: {error}")
        else:
            self.alarm = ""
            return saved
        self.num_failures += 1
        return failure

    def _write(self, name: str) -> Saved:
        tensors, state = self._take_snapshot()
        digest = _digest_of(tensors, state)
        if not name and self.last.name and digest == self._last_digest:
            return self.last._replace(is_new=False)
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
            self.last, self.last_s, self._last_digest = saved, time.monotonic(), digest
        return saved


def _digest_of(tensors: Tensors, state: dict[str, Any]) -> int:
    """Returns a digest of all that a checkpoint holds, but for the clock."""
    digest = xxhash.xxh3_64()
    for group, arrays in sorted(tensors.items()):
        for name, array in sorted(arrays.items()):
            digest.update(f"{group}/{name}/{array.dtype}/{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    counters = {**state["counters"], "wall_time_s": 0}
    digest.update(json.dumps({**state, "counters": counters}, sort_keys=True).encode())
    return digest.intdigest()


def _give_way() -> None:
    """Lowers the CPU priority of this thread, on systems that have one for each thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
