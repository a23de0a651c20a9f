"""One actor of a fleet: its registration, its stream of unrolls, its fetches of weights.

Runs on the event loop of a fleet's process. It uses the generated stubs and the product's channel
options; what it sends is packed once, and only names and numbers change.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import Any

import grpc

from benchmarks.rigs.unroll_source import UnrollSource
from impala_common.codec.specs import pack_environment_spec
from impala_common.codec.unrolls import pack_unrolls
from impala_common.rpc.channel import client_options
from impala_common.rpc.limits import PROTOCOL_VERSION, UNARY_DEADLINE_S, WEIGHTS_DEADLINE_S
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc

_ACCEPTED = learner_pb2.VerdictOutcome.Value("VERDICT_OUTCOME_ACCEPTED")
_JOIN_S = 150.0
_END_S = 5.0


class FleetActor:
    """One actor. Its methods are awaited by one task at a time.

    Attributes:
      num_slots: N, unrolls of one message.
    """

    def __init__(self, address: str, name: str, source: UnrollSource) -> None:
        """Packs its message; `join` connects."""
        self.num_slots = source.num_slots
        self._address = address
        self._name = name
        self._environment = pack_environment_spec(source.spec.environment)
        self._request = learner_pb2.PushUnrollsRequest()
        pack_unrolls(source.messages[0], source.spec, True, self._request.unrolls)
        self._channel: Any = None  # Any: grpc.aio has no stubs for what is generated
        self._stub: Any = None
        self._stream: Any = None
        self._learner_run_id = 0
        self._sequence = 0
        self._verdicts_ms: list[float] = []
        self._failures: list[str] = []
        self._wants_to_leave: bool | None = None

    async def join(self) -> float:
        """Connects, registers and opens the stream; returns the seconds it took."""
        start_s = time.monotonic()
        options = [*client_options(), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(self._address, options=options)
        self._stub = learner_pb2_grpc.LearnerServiceStub(self._channel)  # type: ignore[no-untyped-call]
        actor = header_pb2.ActorHeader(actor_id=self._name, actor_run_id=secrets.randbits(64))
        response = await self._register(actor)
        actor.session_epoch = response.session_epoch
        self._learner_run_id = response.learner.learner_run_id
        self._request.unrolls.actor.CopyFrom(actor)
        self._sequence = 0
        self._stream = self._stub.PushUnrolls()
        hello = learner_pb2.PushHello(learner_run_id=self._learner_run_id, actor=actor)
        await self._stream.write(learner_pb2.PushUnrollsRequest(hello=hello))
        return time.monotonic() - start_s

    async def _register(self, actor: header_pb2.ActorHeader) -> Any:
        request = learner_pb2.RegisterRequest(
            actor=actor,
            protocol_version=PROTOCOL_VERSION,
            environment=self._environment,
            environment_slot_count=self.num_slots,
            host="fleet",
        )
        deadline_s = time.monotonic() + _JOIN_S
        while True:
            try:
                return await self._stub.Register(request, timeout=4 * UNARY_DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                if time.monotonic() > deadline_s:
                    raise
                self._failures.append(f"Register: {error.code().name}")
                await asyncio.sleep(0.2 + 0.8 * secrets.randbelow(1000) / 1000)

    async def send_until(self, end_s: float, interval_s: float, phase: float) -> None:
        """Sends a message every `interval_s` until the loop's time `end_s`, the first after a part.

        A message that falls due while its actor waits for a verdict goes out right after it.
        """
        loop = asyncio.get_running_loop()
        due_s = loop.time() + phase * interval_s
        while due_s < end_s:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if loop.time() >= end_s:
                return
            try:
                if self._wants_to_leave is not None:
                    await self.leave(self._wants_to_leave)
                    self._wants_to_leave = None
                    await self.join()
                await self._push()
            except grpc.aio.AioRpcError as error:
                self._failures.append(f"PushUnrolls: {error.code().name}: {error.details()}"[:160])
                await self.leave(is_orderly=False)
                await self.join()
            due_s = max(due_s + interval_s, loop.time() - interval_s)

    async def _push(self) -> None:
        self._sequence += 1
        self._request.unrolls.sequence_number = self._sequence
        start_s = time.perf_counter()
        await self._stream.write(self._request)
        answer = await self._stream.read()
        if answer is grpc.aio.EOF or answer.WhichOneof("payload") != "verdict":
            raise SystemExit(f"{self._name}: no verdict, but {answer}")
        if answer.verdict.outcome != _ACCEPTED:
            self._failures.append(f"verdict {answer.verdict.outcome}: {answer.verdict.text}"[:160])
            return
        self._verdicts_ms.append(1e3 * (time.perf_counter() - start_s))

    async def fetch(self) -> float:
        """Fetches the newest weights and drops them; returns the seconds it took."""
        start_s = time.monotonic()
        request = learner_pb2.GetWeightsRequest(learner_run_id=self._learner_run_id)
        while True:
            try:
                chunks = self._stub.GetWeights(request, timeout=WEIGHTS_DEADLINE_S)
                while await chunks.read() is not grpc.aio.EOF:
                    continue
                return time.monotonic() - start_s
            except grpc.aio.AioRpcError as error:
                if time.monotonic() > start_s + _JOIN_S:
                    raise
                self._failures.append(f"GetWeights: {error.code().name}")
                await asyncio.sleep(0.2 + 0.8 * secrets.randbelow(1000) / 1000)

    def leave_soon(self, is_orderly: bool) -> None:
        """Leaves before the next message, and comes back at once."""
        self._wants_to_leave = is_orderly

    async def leave(self, is_orderly: bool) -> None:
        """Says goodbye, or lets the connection drop."""
        if self._channel is None:
            return
        if is_orderly and self._stream is not None:
            goodbye = learner_pb2.PushGoodbye(text="the fleet ends")
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                async with asyncio.timeout(_END_S):
                    await self._stream.write(learner_pb2.PushUnrollsRequest(goodbye=goodbye))
                    await self._stream.done_writing()
                    await self._stream.read()
        await self._channel.close()
        self._channel = self._stream = None

    def take_counts(self) -> tuple[list[float], list[str]]:
        """Returns the milliseconds of all verdicts since the last call, and what failed."""
        counts = self._verdicts_ms, self._failures
        self._verdicts_ms, self._failures = [], []
        return counts
