"""EvaluationDesk: which candidate waits, which evaluator plays which, and who may report it.

Owned by the front end's event loop. At most one candidate waits, the newest; every evaluator
plays at most one, and has so long for it as its lease says. A random ticket goes out with each
candidate, and only a report that has it counts. What nobody will play any more the learner is
told to remove. Knows nothing of gRPC.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from impala_common.errors import CapacityError, LearnerUnavailableError, StaleSessionError

MAX_EVALUATORS = 4
_MAX_REMEMBERED = 64
_BARRED_S = 60.0


class WaitingCandidate(NamedTuple):
    """A candidate as the learner announced it."""

    name: str
    trained_steps: int
    policy_version: int


class Seat:
    """One evaluator's place: what it plays, and an event for changes.

    Attributes:
      evaluator_id: whose it is.
      candidate: what it plays, None while it waits.
      ticket: proof of having been given it; another one for each candidate.
      lease_end_s: when its time for the candidate is over, by time.monotonic.
    """

    def __init__(self, evaluator_id: str) -> None:
        """A place without a candidate."""
        self.evaluator_id = evaluator_id
        self.candidate: WaitingCandidate | None = None
        self.ticket = 0
        self.lease_end_s = 0.0
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Ends `wait`."""
        self._changed.set()

    async def wait(self) -> None:
        """Returns when something has changed since the last call.

        Raises:
          StaleSessionError: the lease of its candidate ended.
        """
        left_s = None if self.candidate is None else self.lease_end_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                await self._changed.wait()
        except TimeoutError:
            if self.candidate is None:  # reported at the last moment
                return
            raise StaleSessionError(
                f"evaluator {self.evaluator_id} did not report {self.candidate.name} in its time "
                "(eval_lease_s): its seat is free for others"
            ) from None
        self._changed.clear()


class EvaluationDesk:
    """All places, and the candidate that waits."""

    def __init__(self, drop: Callable[[str], None], lease_s: float = 3600.0) -> None:
        """Nothing waits.

        Args:
          drop: called with the name of a candidate nobody will play.
          lease_s: time an evaluator has for one candidate.
        """
        self._drop_candidate = drop
        self._lease_s = lease_s
        self._waiting: WaitingCandidate | None = None
        self._seats: dict[str, Seat] = {}
        self._tickets: OrderedDict[str, dict[int, str]] = OrderedDict()  # evaluators, by candidate
        self._barred: OrderedDict[str, float] = OrderedDict()  # until when, by evaluator

    @property
    def num_evaluators(self) -> int:
        """Evaluators with a place."""
        return len(self._seats)

    def offer(self, candidate: WaitingCandidate) -> None:
        """Takes a new candidate; one that waited is dropped."""
        if self._waiting is not None:
            self._drop(self._waiting.name)
        self._waiting = candidate
        self._hand_out()

    def join(self, evaluator_id: str) -> Seat:
        """Returns a place.

        Raises:
          LearnerUnavailableError: an evaluator of this name has one, or lost one just now.
          CapacityError: there are too many evaluators.
        """
        if evaluator_id in self._seats:
            raise LearnerUnavailableError(
                f"an evaluator {evaluator_id} is here already: wait until its connection is known "
                "to be gone, or choose another --evaluator-id"
            )
        if self._barred.get(evaluator_id, 0.0) > time.monotonic():
            raise LearnerUnavailableError(
                f"evaluator {evaluator_id} lost its seat less than {_BARRED_S:g} s ago"
            )
        if len(self._seats) >= MAX_EVALUATORS:
            raise CapacityError(f"{MAX_EVALUATORS} evaluators are here already")
        seat = self._seats[evaluator_id] = Seat(evaluator_id)
        self._hand_out()
        return seat

    def leave(self, seat: Seat) -> None:
        """Gives a place up; what it played waits again, unless a newer one does.

        A seat whose lease has ended is gone for good: its tickets count no more, and its
        evaluator is kept out for a minute.
        """
        if self._seats.get(seat.evaluator_id) is seat:
            del self._seats[seat.evaluator_id]
        candidate, seat.candidate = seat.candidate, None
        if candidate is None:
            return
        if seat.lease_end_s <= time.monotonic():
            self._tickets.get(candidate.name, {}).pop(seat.ticket, None)
            self._barred[seat.evaluator_id] = time.monotonic() + _BARRED_S
            while len(self._barred) > _MAX_REMEMBERED:
                self._barred.popitem(last=False)
        if self._waiting is None:
            self._waiting = candidate
            self._hand_out()
        else:
            self._drop(candidate.name)

    def finish(self, name: str) -> None:
        """Notes that a candidate has its verdict, or is gone."""
        if self._waiting is not None and self._waiting.name == name:
            self._waiting = None
        for seat in self._seats.values():
            if seat.candidate is not None and seat.candidate.name == name:
                seat.candidate = None
                seat.wake()  # its lease is over in order
        self._hand_out()

    def holds(self, name: str) -> bool:
        """Returns whether a candidate waits or is being played."""
        candidates = [self._waiting, *(seat.candidate for seat in self._seats.values())]
        return any(candidate is not None and candidate.name == name for candidate in candidates)

    def require_ticket(self, name: str, evaluator_id: str, ticket: int) -> None:
        """Returns if this evaluator was given the candidate with this ticket.

        It counts until somebody else is given the candidate; one that was reported is remembered,
        so that a report whose answer was lost can be repeated.

        Raises:
          StaleSessionError: it was not.
        """
        if self._tickets.get(name, {}).get(ticket) != evaluator_id:
            raise StaleSessionError(
                f"evaluator {evaluator_id} does not hold this candidate: only the seat that was "
                "given it may report it"
            )

    def knows(self, name: str) -> bool:
        """Returns whether a candidate was given to anybody, and is not long gone."""
        return name in self._tickets or self.holds(name)

    def wake(self) -> None:
        """Wakes all evaluators: the learner has begun, stops, or is gone."""
        for seat in self._seats.values():
            seat.wake()

    def _drop(self, name: str) -> None:
        self._tickets.pop(name, None)
        self._drop_candidate(name)

    def _hand_out(self) -> None:
        for seat in self._seats.values():
            if seat.candidate is None and self._waiting is not None:
                candidate, self._waiting = self._waiting, None
                seat.candidate, seat.ticket = candidate, secrets.randbits(63) + 1
                seat.lease_end_s = time.monotonic() + self._lease_s
                before = self._tickets.pop(candidate.name, {})
                mine = {key: who for key, who in before.items() if who == seat.evaluator_id}
                self._tickets[candidate.name] = mine | {seat.ticket: seat.evaluator_id}
                while len(self._tickets) > _MAX_REMEMBERED:
                    self._tickets.popitem(last=False)
                seat.wake()
