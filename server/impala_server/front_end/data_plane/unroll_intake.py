"""UnrollIntake: validates unrolls, writes them into rollout storage, returns verdicts.

Called by the servicer on the front end's event loop; owns the batch slots and
the counts. Knows nothing of gRPC: it gets a parsed message and returns a verdict. While storage is
full it waits. Order of checks:
duplicate, specification and digest and finiteness, version, lag, room. A message that need not wait
is taken without a task of its own (`offer_now`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from impala_common.codec.field_bounds import find_violation
from impala_common.codec.unrolls import UnrollDecoder, Unrolls
from impala_common.errors import InvalidUnrollError, LearnerUnavailableError, QueueClosedError
from impala_common.process import failpoints
from impala_common.run.event_history import EventHistory
from impala_rl.v1 import unroll_pb2
from impala_server.front_end.data_plane.sessions import ActorSession
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.handoff import (
    MAX_EPISODES_PER_BATCH,
    ActorSeconds,
    FinishedEpisode,
    FreedSlot,
    FullSlot,
    HandoffPipe,
)
from impala_server.storage.layout import UnrollOrigin

_LOG = logging.getLogger(__name__)


class Outcome(Enum):
    """Outcome of a message; the wire's VerdictOutcome without its zero."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "stale"
    CAPACITY = "capacity"
    INVALID = "invalid"


class Verdict(NamedTuple):
    """Outcome of one message and, if it was not accepted, why."""

    outcome: Outcome
    text: str = ""


@dataclasses.dataclass(slots=True)
class IntakeCounts:
    """Unrolls by outcome since the front end started.

    At all times accepted = trained + dropped + what is queued in storage: `UnrollIntake.balance`.
    """

    accepted: int = 0
    duplicate: int = 0
    stale: int = 0
    capacity: int = 0
    invalid: int = 0
    trained: int = 0
    dropped: int = 0
    environment_failures: int = 0


class Balance(NamedTuple):
    """Accepted unrolls by what happened to them; `queued` is counted in storage, not calculated."""

    accepted: int
    trained: int
    dropped: int
    queued: int

    @property
    def num_missing(self) -> int:
        """Accepted unrolls missing from the other counts; negative: the counts have too many."""
        return self.accepted - self.trained - self.dropped - self.queued


class UnrollIntake:
    """Checks and stores unrolls; the only writer of rollout storage."""

    def __init__(
        self,
        decoder: UnrollDecoder,
        slots: BatchSlots,
        handoff: HandoffPipe,
        newest_version: Callable[[], int],
        max_policy_lag: int,
        capacity_timeout_s: float,
        batch_size: int,
        history: EventHistory | None = None,
        note_absurd: Callable[[ActorSession, str], None] = lambda _session, _text: None,
    ) -> None:
        """Takes over `slots`.

        Args:
          decoder: checks messages against the unroll's specification.
          slots: rollout storage, writing side.
          handoff: takes full slots to the learner.
          newest_version: version of the newest published weights.
          max_policy_lag: updates an unroll may lag behind; 0 for no limit. May be set later.
          capacity_timeout_s: how long a message waits for room.
          batch_size: unrolls of a slot.
          history: records the verdict of each message.
          note_absurd: called with the session and a description for each message with a number
            out of bounds.
        """
        self._decoder = decoder
        self._slots = slots
        self._handoff = handoff
        self._newest_version = newest_version
        self.max_policy_lag = max_policy_lag
        self._capacity_timeout_s = capacity_timeout_s
        self._batch_size = batch_size
        self._history = history or EventHistory(None)
        self._note_absurd = note_absurd
        self.max_abs_reward = 0.0
        """Largest absolute reward in accepted unrolls."""
        self._writing = asyncio.Lock()  # one message at a time, first come first served
        self._room = asyncio.Event()
        self._room.set()
        self._episodes: list[FinishedEpisode] = []
        self._seconds = [0.0, 0.0, 0.0]
        self._tasks: set[asyncio.Task[Verdict]] = set()
        self.counts = IntakeCounts()

    @property
    def storage_fill(self) -> float:
        """Share of rollout storage in use, 0 to 1."""
        return self._slots.fill

    @property
    def balance(self) -> Balance:
        """All unrolls accepted so far, by what happened to them."""
        counts = self.counts
        return Balance(counts.accepted, counts.trained, counts.dropped, self._slots.num_queued)

    def release(self, freed: FreedSlot) -> None:
        """Takes back a slot from the learner, and wakes messages that wait for room."""
        self._slots.release(freed.slot)
        if freed.is_trained:
            self.counts.trained += self._batch_size
        else:
            self.counts.dropped += self._batch_size
        self._room.set()

    def start(
        self, session: ActorSession, message: unroll_pb2.UnrollBatch
    ) -> asyncio.Task[Verdict]:
        """Begins to take one message, in a task that lives until it is done."""
        task = asyncio.get_running_loop().create_task(self.offer(session, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def offer_now(self, session: ActorSession, message: unroll_pb2.UnrollBatch) -> Verdict | None:
        """Takes one message of `session` if that needs no waiting.

        Returns:
          The verdict; None if the message must wait for room or its turn. Nothing has changed then,
          and the caller passes it to `start`.

        Raises:
          LearnerUnavailableError: the learner is gone.
        """
        if self._tasks or self._writing.locked() or not self._slots.has_room(message.unroll_count):
            return None
        try:
            checked = self._check(session, message)
            if not isinstance(checked, Verdict):
                origin = self._begin(session, message, checked)
                first = 0
                while first < checked.num_unrolls:
                    first += self._write_some(checked, first, message.policy_version, origin)
                checked = self._accept()
        except InvalidUnrollError as error:
            checked = self._refuse(session, error)
        return self._count(session, message, checked)

    async def offer(self, session: ActorSession, message: unroll_pb2.UnrollBatch) -> Verdict:
        """Takes one message of `session`, waiting while storage is full.

        Raises:
          LearnerUnavailableError: the learner is gone.
        """
        try:
            checked = self._check(session, message)
            if not isinstance(checked, Verdict):
                checked = await self._take(session, message, checked)
        except InvalidUnrollError as error:
            checked = self._refuse(session, error)
        return self._count(session, message, checked)

    def _check(self, session: ActorSession, message: unroll_pb2.UnrollBatch) -> Unrolls | Verdict:
        """Returns the unrolls of an acceptable message, or the verdict that refuses it.

        Raises:
          InvalidUnrollError: it breaks the specification.
        """
        if text := find_violation(message):
            raise InvalidUnrollError(text, is_absurd=True)
        sequence, version = message.sequence_number, message.policy_version
        if sequence < 1:
            raise InvalidUnrollError(f"sequence_number: expected at least 1, got {sequence}")
        if sequence <= session.last_sequence:
            return Verdict(Outcome.DUPLICATE)
        unrolls = self._decoder.decode(message)
        newest = self._newest_version()
        if not 0 <= version <= newest:
            raise InvalidUnrollError(f"policy_version: expected 0 to {newest}, got {version}")
        if self.max_policy_lag and newest - version > self.max_policy_lag:
            session.last_sequence = sequence
            return Verdict(
                Outcome.STALE,
                f"lags {newest - version} updates behind, more than {self.max_policy_lag}",
            )
        return unrolls

    async def _take(
        self, session: ActorSession, message: unroll_pb2.UnrollBatch, unrolls: Unrolls
    ) -> Verdict:
        """Writes the unrolls of a message once it is its turn and there is room."""
        try:
            async with asyncio.timeout(self._capacity_timeout_s) as deadline, self._writing:
                await self._wait_for_room()
                deadline.reschedule(None)  # a message whose writing has begun is finished
                if message.sequence_number <= session.last_sequence:  # also on a second stream
                    return Verdict(Outcome.DUPLICATE)
                origin = self._begin(session, message, unrolls)
                await self._write(unrolls, message.policy_version, origin)
        except TimeoutError:
            return Verdict(
                Outcome.CAPACITY, f"no room in rollout storage for {self._capacity_timeout_s:g} s"
            )
        return self._accept()

    def _accept(self) -> Verdict:
        """Returns the verdict on a message whose unrolls are all in storage."""
        failpoints.hit("intake.after_enqueue")
        return Verdict(Outcome.ACCEPTED)

    def _begin(
        self, session: ActorSession, message: unroll_pb2.UnrollBatch, unrolls: Unrolls
    ) -> UnrollOrigin:
        """Marks the sequence number of a message as used, before its unrolls are written."""
        failpoints.hit("intake.before_enqueue")
        session.last_sequence = message.sequence_number
        self._note(message)
        self._note_bounds(session, message, unrolls)
        self._record("accepted", session, message)
        return UnrollOrigin(session.index, session.epoch, message.sequence_number)

    def _refuse(self, session: ActorSession, error: InvalidUnrollError) -> Verdict:
        _LOG.warning("invalid unrolls from actor %s: %s", session.actor_id, error)
        if error.is_absurd:
            self._note_absurd(session, str(error))
        return Verdict(Outcome.INVALID, str(error))

    def _count(
        self, session: ActorSession, message: unroll_pb2.UnrollBatch, verdict: Verdict
    ) -> Verdict:
        """Counts a message by its verdict; returns the verdict."""
        name = verdict.outcome.value
        # What a message says of itself counts only where it can be true.
        is_possible = 1 <= message.unroll_count <= self._decoder.max_unrolls
        num_unrolls = message.unroll_count if is_possible else 1
        lag = max(0, self._newest_version() - message.policy_version)
        session.note(name, num_unrolls, num_unrolls * self._decoder.unroll_length, lag)
        if verdict.outcome is not Outcome.ACCEPTED:  # those are counted as they are written
            setattr(self.counts, name, getattr(self.counts, name) + num_unrolls)
            self._record(name, session, message)
        return verdict

    async def _wait_for_room(self) -> None:
        while not self._slots.has_room():
            self._room.clear()
            await self._room.wait()

    async def _write(self, unrolls: Unrolls, version: int, origin: UnrollOrigin) -> None:
        """Writes all unrolls, waiting for room in between."""
        first = 0
        while first < unrolls.num_unrolls:
            count = self._write_some(unrolls, first, version, origin)
            first += count
            if count == 0:
                await self._wait_for_room()

    def _write_some(self, unrolls: Unrolls, first: int, version: int, origin: UnrollOrigin) -> int:
        """Writes as many unrolls as the open slot has room for; returns their number."""
        count, full = self._slots.write(unrolls, first, version, origin)
        self.counts.accepted += count
        if full is not None:
            self._hand_over(full)
        elif count:
            failpoints.hit("intake.mid_batch")
        return count

    def _note(self, message: unroll_pb2.UnrollBatch) -> None:
        times = message.times
        for k, seconds in enumerate((times.environment_s, times.inference_s, times.blocked_s)):
            self._seconds[k] += seconds
        self.counts.environment_failures += message.environment_failure_count
        room = MAX_EPISODES_PER_BATCH - len(self._episodes)
        self._episodes += [
            FinishedEpisode(episode.episode_return, episode.step_count)
            for episode in message.episodes[:room]
        ]

    def _note_bounds(
        self, session: ActorSession, message: unroll_pb2.UnrollBatch, unrolls: Unrolls
    ) -> None:
        rewards = unrolls.leaves["rewards"]
        largest = max(float(rewards.max()), -float(rewards.min()))
        self.max_abs_reward = max(self.max_abs_reward, largest)
        returns = [abs(episode.episode_return) for episode in message.episodes]
        if returns:
            session.max_abs_return = max(session.max_abs_return or 0.0, *returns)

    def _record(self, event: str, session: ActorSession, message: unroll_pb2.UnrollBatch) -> None:
        if self._history.is_on:
            self._history.add(
                event,
                actor_id=session.actor_id,
                index=session.index,
                epoch=session.epoch,
                seq=message.sequence_number,
                count=message.unroll_count,
                version=message.policy_version,
            )

    def _hand_over(self, slot: int) -> None:
        failpoints.hit("intake.before_hand_over")
        full = FullSlot(slot, self._episodes, ActorSeconds(*self._seconds))
        self._episodes, self._seconds = [], [0.0, 0.0, 0.0]
        try:
            self._handoff.send_full(full)
        except QueueClosedError as error:
            raise LearnerUnavailableError(str(error)) from error
