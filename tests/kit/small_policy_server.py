"""SmallPolicyServer: a policy server of 200 lines that keeps its contract, but for planted faults.

Written against policy.proto alone, with one thing wrong if a fault is named. It draws actions at
random and has no learner. It shows that the conformance kit passes another implementation than the
product's, and finds each violation.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import zstandard
from google.protobuf.unknown_fields import UnknownFieldSet
from small_server import MAX_BYTES, SmallServer

from impala_common import errors
from impala_common.rpc.errors import status_of
from impala_rl.v1 import learner_pb2, policy_pb2, policy_pb2_grpc, spec_pb2, tensor_pb2

MAX_SLOTS = 4000
_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclasses.dataclass
class Slot:
    step: int
    is_over: bool
    stream: object
    heard_s: float
    answer: policy_pb2.SlotActions


@dataclasses.dataclass
class Client:
    hello: policy_pb2.PlayHello
    slots: dict[int, Slot]
    replaced: asyncio.Event


class SmallPolicyServer(SmallServer, policy_pb2_grpc.PolicyServiceServicer):
    """A context manager; `address` once entered.

    Attributes:
      drain_reason: what streams are told when it stops.
      ends_after: messages of observations after which it stops; 0: it goes on.
      message_sizes: serialised sizes of the messages of observations that have come, in bytes.
    """

    drain_reason = learner_pb2.DRAIN_REASON_STOPPING
    ends_after = 0

    def __init__(
        self,
        fault: str = "",
        slot_timeout_s: float = 0.5,
        token: str = "",
        max_bytes: int = MAX_BYTES,
        reads_all: bool = False,
    ) -> None:
        add_to_server = policy_pb2_grpc.add_PolicyServiceServicer_to_server
        super().__init__(fault, token, add_to_server, -1 if reads_all else max_bytes)
        self._told_bytes = max_bytes
        self._slot_timeout_s = slot_timeout_s
        self.message_sizes: list[int] = []
        self._clients: dict[str, Client] = {}
        self._environment: spec_pb2.EnvironmentSpec | None = None
        self._random = np.random.default_rng(0)
        self._versions = itertools.count(1000, -1) if fault == "version-order" else None

    async def Play(self, unused_requests: Any, context: Any) -> None:  # noqa: N802
        try:
            await self._play(context)
        except errors.ImpalaError as error:
            await context.abort_with_status(status_of(error))

    async def _play(self, context: Any) -> None:
        self._require_token(context)
        request = await context.read()
        if request is grpc.aio.EOF or request.WhichOneof("payload") != "hello":
            if self.fault == "hello-first":
                return
            raise errors.InvalidRequestError("expected hello")
        self._check_hello(request.hello)
        client = self._join(request.hello)
        timeout = policy_pb2.PlayWelcome(protocol_version=1, max_message_bytes=self._told_bytes)
        if self.fault != "welcome":
            timeout.slot_timeout.FromMilliseconds(int(1000 * self._slot_timeout_s))
        await context.write(policy_pb2.PlayResponse(welcome=timeout))
        stream, replaced = object(), client.replaced
        ends = [asyncio.create_task(replaced.wait()), asyncio.create_task(self._stopping.wait())]
        is_goodbye = False
        try:
            while True:
                read = asyncio.create_task(context.read())
                await asyncio.wait({read, *ends}, return_when=asyncio.FIRST_COMPLETED)
                if replaced.is_set():
                    raise errors.StaleSessionError("a newer stream is there")
                if self._stopping.is_set():
                    if self.fault != "drain":
                        drain = policy_pb2.PlayDrain(reason=self.drain_reason)
                        await context.write(policy_pb2.PlayResponse(drain=drain))
                    return
                request = read.result()
                is_goodbye = request is not grpc.aio.EOF and request.HasField("goodbye")
                if request is grpc.aio.EOF or is_goodbye:
                    return
                if request.WhichOneof("payload") == "observations":
                    self.message_sizes.append(request.ByteSize())
                    if len(self.message_sizes) == self.ends_after:
                        self._stopping.set()
                    for response in self._observe(client, stream, request.observations):
                        await context.write(response)
                elif self.fault not in ("hello-twice", "message-empty"):
                    raise errors.InvalidRequestError("expected observations or goodbye")
        finally:
            for end in ends:
                end.cancel()
            if (is_goodbye and self.fault != "goodbye") or self.fault == "broken-stream":
                client.slots.clear()
                self._clients.pop(client.hello.client_id, None)

    def _require_token(self, context: Any) -> None:
        given = dict(context.invocation_metadata()).get("authorization")
        if self._token and self.fault != "token" and given != f"Bearer {self._token}":
            raise errors.UnauthenticatedError("expected a token")

    def _check_hello(self, hello: policy_pb2.PlayHello) -> None:
        if not is_name(hello.client_id) and self.fault != "client-id":
            raise errors.InvalidRequestError("client_id")
        if hello.protocol_version != 1 and self.fault != "protocol-version":
            raise errors.ProtocolMismatchError("expected 1")
        if hello.slot_count < 1 and self.fault != "slot-count":
            raise errors.InvalidRequestError("slot_count")
        others = sum(
            one.hello.slot_count for key, one in self._clients.items() if key != hello.client_id
        )
        if others + hello.slot_count > MAX_SLOTS:
            if self.fault == "capacity":
                raise errors.LearnerUnavailableError("no room")
            raise errors.CapacityError("no room")
        is_greedy = hello.is_greedy and not hello.is_evaluation
        if is_greedy and self.fault != "greedy-needs-evaluation":
            raise errors.InvalidRequestError("is_greedy")
        if not hello.environment.observation_leaves and self.fault != "empty-environment":
            raise errors.InvalidRequestError("environment")
        known = self._environment or hello.environment
        if known != hello.environment and self.fault not in ("environment", "empty-environment"):
            raise errors.SpecMismatchError("environment", "the first client's", "another")
        self._environment = known

    def _join(self, hello: policy_pb2.PlayHello) -> Client:
        old = self._clients.get(hello.client_id)
        is_same = old is not None and old.hello == hello
        if old is not None and self.fault != ("second-stream" if is_same else "new-life"):
            old.replaced.set()
        if old is None or not is_same:
            old = Client(hello, {}, asyncio.Event())
        old.replaced = asyncio.Event()
        self._clients[hello.client_id] = old
        return old

    def _observe(
        self, client: Client, stream: object, message: policy_pb2.SlotObservations
    ) -> Iterator[policy_pb2.PlayResponse]:
        for name, text in self._violations(client, message):
            if name != self.fault:
                raise errors.InvalidRequestError(text)
        if message.codec == tensor_pb2.CODEC_ZSTD:
            if self.fault == "message-zstd":
                raise errors.InvalidRequestError("no zstd")
            message.leaves[:] = [self._decompress(leaf) for leaf in message.leaves]
        now_s, num, lost = self._loop.time(), len(message.slots), []
        if self.fault == "slots-alone" and num < client.hello.slot_count:
            return
        for index, slot in enumerate(message.slots):
            known = client.slots.get(slot)
            if known and now_s - known.heard_s > self._slot_timeout_s:
                known = None if self.fault != "silent-slots" else known
            is_first = index < len(message.is_first) and message.is_first[index]
            if known is None and not is_first and self.fault != "lost-slots":
                lost.append(slot)
                continue
            step = message.step_numbers[index]
            if self.fault == "first-number" and known is None and step != 0:
                raise errors.InvalidRequestError("expected number 0")
            if known and known.step == step and self.fault != "repetition":
                if self.fault != "unread-answer" or known.stream is stream:
                    yield policy_pb2.PlayResponse(actions=known.answer)
                continue
            if known:
                self._check_order(known, step, is_first)
            is_over = any(
                index < len(flags) and flags[index]
                for flags in (message.terminated, message.truncated)
            )
            answer = self._decide(client, message, index, is_over)
            client.slots[slot] = Slot(step, is_over, stream, now_s, answer)
            yield policy_pb2.PlayResponse(actions=answer)
            if self.fault == "one-answer":
                yield policy_pb2.PlayResponse(actions=answer)
        if lost:
            slots = message.slots if self.fault == "lost-in-part" else lost
            yield policy_pb2.PlayResponse(lost_slots=policy_pb2.LostSlots(slots=slots))

    def _check_order(self, known: Slot, step: int, is_first: bool) -> None:
        if step > known.step + 1 and self.fault != "gap":
            raise errors.InvalidRequestError("a gap")
        if step < known.step and self.fault != "older-number":
            raise errors.InvalidRequestError("an older number")
        if known.is_over and not is_first and self.fault != "unopened-episode":
            raise errors.InvalidRequestError("expected is_first")
        if not known.is_over and is_first and self.fault == "abandoned-episode":
            raise errors.InvalidRequestError("expected an end first")

    def _decompress(self, data: bytes) -> bytes:
        return zstandard.ZstdDecompressor().decompress(data)

    def _violations(
        self, client: Client, message: policy_pb2.SlotObservations
    ) -> Iterator[tuple[str, str]]:
        slots, num = list(message.slots), len(message.slots)
        if self.fault == "unknown-field" and len(UnknownFieldSet(message)):
            yield "", "an unknown field"
        if (
            not slots
            or len(set(slots)) < num
            or not set(slots) <= set(range(client.hello.slot_count))
        ):
            yield "message-slots", "slots"
            return
        lists = (message.terminated, message.truncated, message.is_first)
        if any(len(one) not in (0, num) for one in lists) or not (
            len(message.step_numbers) == len(message.rewards) == num
        ):
            yield "message-lengths", "lists"
            return
        if not np.isfinite(message.rewards).all() or min(message.step_numbers) < 0:
            yield "message-numbers", "numbers"
        for index in np.flatnonzero(message.is_first):
            ends = [flags[index] for flags in lists[:2] if flags]
            if any(ends) or message.rewards[index] != 0.0:
                yield "message-first", "is_first"
        yield from self._leaf_violations(message, num)

    def _leaf_violations(
        self, message: policy_pb2.SlotObservations, num: int
    ) -> Iterator[tuple[str, str]]:
        assert self._environment is not None
        specs, leaves = self._environment.observation_leaves, list(message.leaves)
        if message.codec not in (0, 1):
            yield "message-codec", "codec"
        if message.codec == tensor_pb2.CODEC_ZSTD:
            try:
                leaves = [self._decompress(leaf) for leaf in leaves]
            except zstandard.ZstdError:
                yield "message-codec", "no zstd frame"
                message.codec = tensor_pb2.CODEC_UNSPECIFIED
        if len(leaves) != len(specs):
            yield "message-leaves", "leaves"
            return
        for spec, leaf in zip(specs, leaves, strict=True):
            dtype = _dtype_of(spec)
            if len(leaf) != num * math.prod(spec.shape) * dtype.itemsize:
                yield "message-leaves", "size of a leaf"
                return
            if dtype.kind == "f" and not np.isfinite(np.frombuffer(leaf, dtype)).all():
                yield "message-numbers", "numbers"
            if dtype.kind == "b" and set(leaf) - {0, 1}:
                yield "message-bools", "bools"

    def _decide(
        self, client: Client, message: policy_pb2.SlotObservations, index: int, is_over: bool
    ) -> policy_pb2.SlotActions:
        """Draws an action of an environment whose action is one choice."""
        assert self._environment is not None
        (part,) = self._environment.action.parts
        (size,) = part.sizes
        legal = np.ones(size, np.bool_)
        for spec, leaf in zip(self._environment.observation_leaves, message.leaves, strict=False):
            if spec.role == tensor_pb2.TENSOR_ROLE_ACTION_MASK and self.fault != "action-mask":
                legal = np.frombuffer(leaf, np.bool_).reshape(-1, size)[index]
        is_greedy = client.hello.is_greedy and self.fault != "greedy"
        choice = (
            np.flatnonzero(legal)[0] if is_greedy else self._random.choice(np.flatnonzero(legal))
        )
        version = 0 if self._versions is None else next(self._versions)
        if is_over and self.fault != "final-observation":
            version = -1
        logits = np.where(legal, -np.arange(size), -1e9).astype(np.float32)
        wants_logits = client.hello.wants_logits and self.fault != "logits"
        return policy_pb2.SlotActions(
            slots=[message.slots[index]],
            step_numbers=[message.step_numbers[index]],
            parts=[np.array(choice + part.starts[0], _dtype_of(part.tensor)).tobytes()],
            policy_version=version,
            logits=logits.tobytes() if wants_logits else b"",
        )


def is_name(name: str) -> bool:
    first, rest = name[:1], name[1:]
    return first in list(_NAME) and set(rest) <= set(_NAME + "._-") and len(rest) < 64


def _dtype_of(spec: tensor_pb2.TensorSpec) -> np.dtype[Any]:
    return np.dtype(tensor_pb2.DType.Name(spec.dtype).removeprefix("DTYPE_").lower())
