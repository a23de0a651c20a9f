"""Front: the unroll intake and rollout storage without gRPC, for tests that offer messages."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Awaitable, Callable
from typing import Any

from impala_common.codec.unrolls import UnrollDecoder
from impala_common.testing.unrolls import make_unrolls, make_vector_spec, pack_stacked
from impala_rl.v1 import unroll_pb2
from impala_server.front_end.data_plane.sessions import ActorSession, SessionTable
from impala_server.front_end.data_plane.unroll_intake import UnrollIntake, Verdict
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.frame_pipe import make_pair
from impala_server.storage.handoff import HandoffPipe
from impala_server.storage.layout import StorageLayout

SPEC = make_vector_spec()
BATCH_SIZE, NUM_SLOTS = 2, 2
VERSION = 10
FOR_EVER_S = 1000.0
WAIT_S = 10.0


class Front:
    """An intake with storage of two batches of two, and the learner's end of its pipe."""

    def __init__(self, capacity_timeout_s: float = FOR_EVER_S, max_policy_lag: int = 0) -> None:
        layout = StorageLayout(SPEC, BATCH_SIZE, NUM_SLOTS)
        self.memory = mmap.mmap(-1, layout.num_bytes)
        self.views = layout.make_views(memoryview(self.memory))
        ours, theirs = make_pair()
        self.learner = HandoffPipe(theirs)
        self._handoff = HandoffPipe(ours)
        self.intake = UnrollIntake(
            UnrollDecoder(SPEC, max_unrolls=16),
            BatchSlots(layout, memoryview(self.memory)),
            self._handoff,
            lambda: VERSION,
            max_policy_lag,
            capacity_timeout_s,
            BATCH_SIZE,
        )
        self.sessions = SessionTable(16, 1, 0)
        self.session = self.register("a")

    def register(self, name: str) -> ActorSession:
        return self.sessions.register(name, 1, 8, "host")

    async def offer(
        self, sequence: int, num_unrolls: int = 2, session: ActorSession | None = None
    ) -> Verdict:
        message = make_message(sequence, num_unrolls)
        return await self.intake.offer(session or self.session, message)

    def full_slots(self) -> list[int]:
        """Returns the slots handed to the learner since the last call."""
        slots = []
        while (full := self.learner.receive_full(0.0)) is not None:
            slots.append(full.slot)
        return slots

    def close(self) -> None:
        self._handoff.close()
        self.learner.close()


def make_message(sequence: int, num_unrolls: int = 2, **fields: Any) -> unroll_pb2.UnrollBatch:
    """Returns a good message whose numbers derive from its sequence number."""
    unrolls = make_unrolls(SPEC, num_unrolls, seed=abs(sequence) % 1000)
    message = pack_stacked(unrolls, SPEC, compress=False)
    message.sequence_number = sequence
    message.policy_version = fields.pop("policy_version", VERSION)
    assert not fields
    return message


def rewards_of(sequence: int, num_unrolls: int = 2) -> Any:
    return make_unrolls(SPEC, num_unrolls, seed=sequence % 1000)["rewards"]


def run(test: Callable[[Front], Awaitable[None]], **settings: Any) -> None:
    """Runs an asynchronous test on a fresh Front, with a deadline."""

    async def body() -> None:
        front = Front(**settings)
        try:
            async with asyncio.timeout(WAIT_S):
                await test(front)
        finally:
            front.close()

    asyncio.run(body())


async def settle(*tasks: asyncio.Task[Verdict]) -> None:
    """Lets tasks run as far as they get: nothing here waits for anything but the test."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
