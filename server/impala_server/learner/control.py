"""The learner's state machine, and UpdateGate, which pauses updates.

The state machine is owned by the controller's thread. The gate is shut and
opened by it and passed by learner threads, under the learner's update lock.
Knows neither torch nor gRPC.
"""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import NamedTuple

from impala_common.errors import IllegalTransitionError

_POLL_S = 0.5


class State(StrEnum):
    """State of the learner; the wire's LearnerState without its zero."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"


class Action(NamedTuple):
    """An action on the learner.

    Attributes:
      states: the states in which it is allowed.
      after: the state after it; None: the same as before.
      is_command: whether an administrator may request it by name.
    """

    states: frozenset[State]
    after: State | None = None
    is_command: bool = True


_ACTIVE = frozenset({State.RUNNING, State.PAUSED})

ACTIONS: dict[str, Action] = {
    "begin": Action(frozenset({State.STARTING}), State.RUNNING, is_command=False),
    "pause": Action(frozenset({State.RUNNING}), State.PAUSED),
    "resume": Action(frozenset({State.PAUSED}), State.RUNNING),
    "checkpoint": Action(_ACTIVE | {State.DRAINING}),
    "rollback": Action(_ACTIVE),
    "set": Action(_ACTIVE),
    "profile": Action(frozenset({State.RUNNING})),
    "drain": Action(_ACTIVE, State.DRAINING),
    "shutdown": Action(frozenset(State) - {State.STOPPED}),
    "stop": Action(frozenset(State) - {State.STOPPED}, State.DRAINING, is_command=False),
    "end": Action(frozenset({State.DRAINING}), State.STOPPED, is_command=False),
}
"""Action by name; a command without an entry is allowed in every state."""


class StateMachine:
    """The learner's state; starts with STARTING."""

    def __init__(self) -> None:
        """Starts with STARTING."""
        self.state = State.STARTING

    def require(self, what: str) -> None:
        """Raises IllegalTransitionError unless `what` is allowed in this state."""
        if self.state in ACTIONS[what].states:
            return
        states = " or ".join(state for state in State if state in ACTIONS[what].states)
        allowed = [
            name
            for name, action in ACTIONS.items()
            if action.is_command and self.state in action.states
        ]
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
        self.state = ACTIONS[what].after or self.state
        return self.state


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

    @property
    def is_shut(self) -> bool:
        """Whether updates are held back; True for a moment may be by chance."""
        return self._is_shut

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
