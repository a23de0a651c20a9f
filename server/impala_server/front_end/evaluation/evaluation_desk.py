"""EvaluationDesk: the waiting candidate, and the evaluators that play candidates.

Owned by the front end's event loop. At most one candidate waits, the newest; every evaluator
plays at most one. The learner is told to remove a candidate that no evaluator will play. Knows
nothing of gRPC.

A seat has a lease: an evaluator that holds a candidate and does not fetch its weights for
FETCH_LEASE_S, or reports nothing for LEASE_S, loses both when another evaluator needs a place, and
when a newer candidate waits. A second stream of a name cannot take a live seat. Only the evaluator
that holds a candidate may report it: it returns the ticket that came with the candidate. One that
knows no tickets must report over the connection of its stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from impala_common.errors import CapacityError, NotFoundError
from impala_common.process.logs import printable

MAX_EVALUATORS = 4
_MAX_REPORTED = 64
LEASE_S = 1800.0
"""How long an evaluator may play one candidate while others need its place."""
FETCH_LEASE_S = 60.0
"""How long it may hold a candidate without asking for the weights while others need its place."""


class WaitingCandidate(NamedTuple):
    """A candidate as the learner announced it."""

    name: str
    trained_steps: int
    policy_version: int


class Seat:
    """One evaluator's place: its candidate, and an event for changes.

    Attributes:
      evaluator_id: whose it is.
      peer: address of the connection of its stream.
      candidate: what it plays, None while it waits.
      is_over: whether its place was given to somebody else.
      since_s: when it was given its place or its candidate or last reported one, by `now_s`.
      has_weights: whether it has asked for the weights of its candidate.
    """

    def __init__(self, evaluator_id: str, peer: str, since_s: float) -> None:
        """A place without a candidate."""
        self.evaluator_id = evaluator_id
        self.peer = peer
        self.candidate: WaitingCandidate | None = None
        self.is_over = False
        self.since_s = since_s
        self.has_weights = False
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

    def __init__(
        self, drop: Callable[[str], None], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing waits; `drop` is called with the name of a candidate nobody will play."""
        self._drop = drop
        self._now_s = now_s
        self._waiting: WaitingCandidate | None = None
        self._seats: dict[str, Seat] = {}
        self._reported: deque[str] = deque(maxlen=_MAX_REPORTED)
        self._key = secrets.token_bytes(32)

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
        if self._waiting is not None:  # all are busy: some perhaps for too long
            for seat in [*self._seats.values()]:
                if self._is_expired(seat):
                    self._expel(seat)

    def join(self, evaluator_id: str, peer: str = "") -> Seat:
        """Returns a place; where none is free, that of an evaluator whose lease is over.

        Raises:
          CapacityError: the name has a live place, or there are too many evaluators.
        """
        old = self._seats.get(evaluator_id)
        if old is not None and not self._is_expired(old):
            raise CapacityError(f"evaluator {evaluator_id} is here already, on another stream")
        if old is None and len(self._seats) >= MAX_EVALUATORS:
            old = next(filter(self._is_expired, self._seats.values()), None)
            if old is None:
                raise CapacityError(f"{MAX_EVALUATORS} evaluators are here already")
        if old is not None:
            self._expel(old)
        seat = self._seats[evaluator_id] = Seat(evaluator_id, peer, self._now_s())
        self._hand_out()
        return seat

    def ticket_of(self, evaluator_id: str, name: str) -> int:
        """Returns the proof that this evaluator was given this candidate, in [1, 2**64).

        The same for each stream of the evaluator, so that a stream that broke costs no evaluation.
        """
        text = f"{evaluator_id} {name}".encode()
        digest = hashlib.blake2b(text, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big") | 1

    def note_fetch(self, name: str, ticket: int, peer: str) -> None:
        """Notes that somebody asks for a candidate's weights; of interest only from its holder."""
        seat = self._holder_of(name)
        if seat is not None and self._is_of(seat.evaluator_id, name, ticket, peer):
            seat.has_weights = True

    def require_reporter(
        self, evaluator_id: str, name: str, ticket: int = 0, peer: str = ""
    ) -> None:
        """Raises NotFoundError unless this evaluator was given the candidate and no other holds it.

        A candidate that was reported already may be reported again: that changes nothing, and an
        evaluator whose answer was lost must hear it.
        """
        seat = self._holder_of(name)
        is_taken = seat is not None and seat.evaluator_id != evaluator_id
        is_known = self.holds(name) or name in self._reported
        if is_taken or not is_known or not self._is_of(evaluator_id, name, ticket, peer):
            raise NotFoundError(
                f"evaluator {evaluator_id} does not hold candidate '{printable(name, 64)}': it was "
                "replaced, judged or given to another"
            )

    def _is_of(self, evaluator_id: str, name: str, ticket: int, peer: str) -> bool:
        """Whether a request proves that it comes from the evaluator that was given a candidate."""
        if ticket:
            return ticket == self.ticket_of(evaluator_id, name)
        seat = self._seats.get(evaluator_id)
        if seat is None or seat.peer != peer:
            return False
        return name in self._reported or (
            seat.candidate is not None and seat.candidate.name == name
        )

    def _holder_of(self, name: str) -> Seat | None:
        for seat in self._seats.values():
            if seat.candidate is not None and seat.candidate.name == name:
                return seat
        return None

    def _is_expired(self, seat: Seat) -> bool:
        """Whether a place was held for a whole lease without a report, or without the weights."""
        lease_s = LEASE_S if seat.has_weights else FETCH_LEASE_S
        return seat.candidate is not None and self._now_s() - seat.since_s > lease_s

    def _expel(self, seat: Seat) -> None:
        seat.is_over = True
        seat.wake()
        self.leave(seat)

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
                seat.candidate, seat.since_s = None, self._now_s()
                self._reported.append(name)
        self._hand_out()

    def give_up(self, name: str) -> None:
        """Drops a candidate that cannot be evaluated."""
        if self.holds(name):
            self._drop(name)
        self.finish(name)

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
                seat.since_s, seat.has_weights = self._now_s(), False
                seat.wake()
