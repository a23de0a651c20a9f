"""Clients of PolicyService.Play on one event loop, to load a server with: each has one slot.

Used by the section `thin`. Each client has a connection of its own. `play` lets all of them play
as fast as they get answers, or at a given rate in all; latencies are from a message to its answer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import grpc
import numpy as np

from impala_rl.v1 import policy_pb2, policy_pb2_grpc
from impala_thin import Environment

ENVIRONMENT = Environment.simple((4,), num_actions=2)
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class Load(NamedTuple):
    """What clients got.

    Attributes:
      steps_per_s: answers per second.
      latencies_s: of all answers.
    """

    steps_per_s: float
    latencies_s: list[float]

    def quantile_ms(self, q: float) -> float:
        """Returns a quantile of the latencies in milliseconds."""
        return 1e3 * float(np.quantile(self.latencies_s, q))


class PlayClient:
    """One client with one slot."""

    def __init__(self, address: str, name: str) -> None:
        """Prepares a connection to `address`."""
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._call: Any = policy_pb2_grpc.PolicyServiceStub(self._channel).Play()  # type: ignore[no-untyped-call]
        self._name = name
        self._number = 0
        self._leaf = np.zeros(4, np.float32).tobytes()

    async def open(self) -> None:
        """Says hello and plays the first observation."""
        hello = policy_pb2.PlayHello(
            client_id=self._name,
            client_run_id=1,
            protocol_version=1,
            environment=ENVIRONMENT.spec,
            slot_count=1,
        )
        await self._call.write(policy_pb2.PlayRequest(hello=hello))
        await self._call.read()
        await self.step()

    async def step(self) -> None:
        """Sends an observation and reads its action."""
        observations = policy_pb2.SlotObservations(
            slots=[0],
            step_numbers=[self._number],
            leaves=[self._leaf],
            rewards=[0.0],
            is_first=[self._number == 0],
        )
        await self._call.write(policy_pb2.PlayRequest(observations=observations))
        await self._call.read()
        self._number += 1

    async def close(self) -> None:
        """Ends it."""
        self._call.cancel()
        await self._channel.close()


async def play(clients: list[PlayClient], seconds: float, steps_per_s: float = 0.0) -> Load:
    """Plays for so long; at `steps_per_s` in all, or as fast as answers come if it is 0."""
    latencies: list[float] = []
    start_s = time.perf_counter()
    period_s = len(clients) / steps_per_s if steps_per_s else 0.0

    async def play_one(index: int) -> None:
        due_s = start_s + period_s * index / len(clients)
        while due_s < start_s + seconds:
            if period_s:
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            sent_s = time.perf_counter()
            if sent_s > start_s + seconds:
                return
            await clients[index].step()
            now_s = time.perf_counter()
            # Of a paced client from when it was due: who falls behind waits, too.
            latencies.append(now_s - (due_s if period_s else sent_s))
            due_s += period_s

    await asyncio.gather(*(play_one(index) for index in range(len(clients))))
    return Load(len(latencies) / (time.perf_counter() - start_s), latencies)
