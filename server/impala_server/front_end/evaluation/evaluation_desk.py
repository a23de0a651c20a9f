"""EvaluationDesk: the waiting candidate, and the evaluators that play candidates.

Owned by the front end's event loop. At most one candidate waits, the newest; every evaluator
plays at most one. The learner is told to remove a candidate that no evaluator will play. Knows
nothing
of gRPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from impala_common.errors import CapacityError

MAX_EVALUATORS = 4


class WaitingCandidate(NamedTuple):
    """A candidate as the learner announced it."""

    name: str
    trained_steps: int
    policy_version: int


class Seat:
    """One evaluator's place: its candidate, and an event for changes.

    Attributes:
      evaluator_id: of the evaluator.
      candidate: the one it plays, None while it waits.
      is_taken_over: whether a newer stream of the same evaluator has its place.
    """

    def __init__(self, evaluator_id: str) -> None:
        """Starts without a candidate."""
        self.evaluator_id = evaluator_id
        self.candidate: WaitingCandidate | None = None
        self.is_taken_over = False
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Ends `wait`."""
        self._changed.set()

    async def wait(self) -> None:
        """Returns when something has changed since the last call."""
        await self._changed.wait()
        self._changed.clear()


class EvaluationDesk:
    """All places, and the candidate that waits."""

    def __init__(self, drop: Callable[[str], None]) -> None:
        """Starts empty; `drop` is called with the name of each candidate that no one will play."""
        self._drop = drop
        self._waiting: WaitingCandidate | None = None
        self._seats: dict[str, Seat] = {}

    @property
    def num_evaluators(self) -> int:
        """Evaluators with a place."""
        return len(self._seats)

    def offer(self, candidate: WaitingCandidate) -> None:
        """Takes a new candidate and drops the one that waited."""
        if self._waiting is not None:
            self._drop(self._waiting.name)
        self._waiting = candidate
        self._hand_out()

    def join(self, evaluator_id: str) -> Seat:
        """Returns a place; an older place of the same evaluator is taken over with its candidate.

        Raises:
          CapacityError: there are too many evaluators.
        """
        old = self._seats.pop(evaluator_id, None)
        if old is None and len(self._seats) >= MAX_EVALUATORS:
            raise CapacityError(f"{MAX_EVALUATORS} evaluators are here already")
        seat = self._seats[evaluator_id] = Seat(evaluator_id)
        if old is not None:
            seat.candidate, old.candidate = old.candidate, None
            old.is_taken_over = True
            old.wake()
        self._hand_out()
        return seat

    def leave(self, seat: Seat) -> None:
        """Gives a place up; its candidate waits again, unless a newer one waits."""
        if self._seats.get(seat.evaluator_id) is seat:
            del self._seats[seat.evaluator_id]
        candidate, seat.candidate = seat.candidate, None
        if candidate is None:
            return
        if self._waiting is None:
            self._waiting = candidate
            self._hand_out()
        else:
            self._drop(candidate.name)

    def finish(self, name: str) -> None:
        """Notes that a candidate has its result, or was removed."""
        if self._waiting is not None and self._waiting.name == name:
            self._waiting = None
        for seat in self._seats.values():
            if seat.candidate is not None and seat.candidate.name == name:
                seat.candidate = None
        self._hand_out()

    def holds(self, name: str) -> bool:
        """Returns whether a candidate waits or is being played."""
        candidates = [self._waiting, *(seat.candidate for seat in self._seats.values())]
        return any(candidate is not None and candidate.name == name for candidate in candidates)

    def wake(self) -> None:
        """Wakes all evaluators: the learner has begun, stops, or is gone."""
        for seat in self._seats.values():
            seat.wake()

    def _hand_out(self) -> None:
        for seat in self._seats.values():
            if seat.candidate is None and self._waiting is not None:
                seat.candidate, self._waiting = self._waiting, None
                seat.wake()
