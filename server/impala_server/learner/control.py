"""The learner's state machine, and UpdateGate, which pauses updates.

The state machine is owned by the controller's thread. The gate is shut and
opened by it and passed by learner threads, under the learner's update lock.
Knows neither torch nor gRPC.
"""

from __future__ import annotations

import threading
from enum import StrEnum

from impala_common.errors import IllegalTransitionError

_POLL_S = 0.5


class State(StrEnum):
    """State of the learner; the wire's LearnerState without its zero."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"


TRANSITIONS: dict[str, dict[State, State]] = {
    "begin": {State.STARTING: State.RUNNING},
    "pause": {State.RUNNING: State.PAUSED},
    "resume": {State.PAUSED: State.RUNNING},
    "drain": {State.RUNNING: State.DRAINING, State.PAUSED: State.DRAINING},
    "stop": {state: State.DRAINING for state in State if state is not State.STOPPED},
    "end": {State.DRAINING: State.STOPPED},
}
"""Action -> (state before -> state after)."""

ALLOWED: dict[str, frozenset[State]] = {
    name: frozenset(steps) for name, steps in TRANSITIONS.items()
}
"""Request -> states in which it is allowed."""
ALLOWED |= {
    "checkpoint": frozenset({State.RUNNING, State.PAUSED, State.DRAINING}),
    "rollback": frozenset({State.RUNNING, State.PAUSED}),
    "set": frozenset({State.RUNNING, State.PAUSED}),
    "profile": frozenset({State.RUNNING}),
    "shutdown": frozenset(State) - {State.STOPPED},
}


class StateMachine:
    """The learner's state; starts with STARTING."""

    def __init__(self) -> None:
        """Starts with STARTING."""
        self.state = State.STARTING

    def require(self, what: str) -> None:
        """Raises IllegalTransitionError unless `what` is allowed in this state."""
        if self.state in ALLOWED[what]:
            return
        states = " or ".join(state for state in State if state in ALLOWED[what])
        allowed = [name for name in ADMIN_COMMANDS if self.state in ALLOWED[name]]
        raise IllegalTransitionError(
            f"{what} is allowed while {states}, but the learner is {self.state}; "
            f"allowed now: {', '.join(allowed) or 'nothing'}"
        )

    def move(self, what: str) -> State:
        """Does `what` and returns the new state.

        Raises:
          IllegalTransitionError: not in this state; nothing has changed.
        """
        self.require(what)
        self.state = TRANSITIONS[what][self.state]
        return self.state


ADMIN_COMMANDS = (
    "pause",
    "resume",
    "checkpoint",
    "rollback",
    "set",
    "profile",
    "drain",
    "shutdown",
)
"""Requests that an administrator may make."""


class UpdateGate:
    """Lets updates through, holds them back, or ends the wait of learner threads.

    `pass_through` and `hold` are called with the update lock held; the others
    take it. So when `shut` returns, no update runs and none begins.
    """

    def __init__(self, update_lock: threading.Lock) -> None:
        """Starts open."""
        self._changed = threading.Condition(update_lock)
        self._is_shut = False
        self._is_closed = False

    def pass_through(self) -> bool:
        """Waits while the gate is shut; returns False if it was closed while shut."""
        while self._is_shut and not self._is_closed:
            self._changed.wait(_POLL_S)
        return not self._is_shut

    def shut(self) -> None:
        """Holds back further updates, once the one under way has ended."""
        with self._changed:
            self._is_shut = True

    def hold(self) -> None:
        """Holds back further updates; to be called by the update under way, under the lock."""
        self._is_shut = True

    def open(self) -> None:
        """Lets updates through again."""
        with self._changed:
            self._is_shut = False
            self._changed.notify_all()

    def close(self) -> None:
        """Wakes waiting threads: `pass_through` returns False. An open gate stays open."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
