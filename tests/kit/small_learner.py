"""SmallLearner: a learner that trains nothing and keeps its contract, but for planted faults.

Written against learner.proto alone, with one thing wrong if a fault is named. Its environment has
one leaf and one choice, as the default of the conformance kit.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import struct
from typing import Any

import grpc
import numpy as np
import xxhash
import zstandard
from small_policy_server import is_name
from small_server import MAX_BYTES, SmallServer

from impala_common import errors
from impala_common.rpc.errors import status_of
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc, spec_pb2, tensor_pb2, unroll_pb2

T = 4
_TYPES = {
    "is_first": (T + 1, "bool"),
    "actions": (T, "int64"),
    "behaviour_policy_logits": (T, "float32"),
    "rewards": (T, "float32"),
    "terminated": (T, "bool"),
    "truncated": (T, "bool"),
    "is_padding": (T, "bool"),
}
_WEIGHTS = {"one": [2, 3], "two": [700, 500]}


class SmallLearner(SmallServer, learner_pb2_grpc.LearnerServiceServicer):
    """A context manager; `address` once entered."""

    def __init__(self, fault: str = "", token: str = "") -> None:
        super().__init__(fault, token, learner_pb2_grpc.add_LearnerServiceServicer_to_server)
        self._life = 77
        self._sessions: dict[str, tuple[int, int, int]] = {}  # run id, epoch, index
        self._taken: dict[str, int] = {}
        self._versions = itertools.count(1000, -1)
        self._environment: spec_pb2.EnvironmentSpec | None = None

    def _header(self) -> header_pb2.LearnerHeader:
        version = next(self._versions) if self.fault == "verdict-header" else 5
        return header_pb2.LearnerHeader(learner_run_id=self._life, policy_version=version)

    async def GetConfig(self, unused_request: Any, context: Any) -> Any:  # noqa: N802
        given = dict(context.invocation_metadata()).get("authorization")
        if self._token and self.fault != "token" and given != f"Bearer {self._token}":
            error = errors.UnauthenticatedError("expected a token")
            await context.abort_with_status(status_of(error))
        count = 0 if self.fault == "get-config" else 1
        return learner_pb2.GetConfigResponse(protocol_version=1, environment_slot_count=count)

    async def Register(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            return self._register(request)
        except errors.ImpalaError as error:
            if self.fault == "environment" and isinstance(error, errors.SpecMismatchError):
                error = errors.ModelError("another environment")
            await context.abort_with_status(status_of(error))

    def _register(self, request: learner_pb2.RegisterRequest) -> learner_pb2.RegisterResponse:
        if request.protocol_version != 1 and self.fault != "protocol-version":
            raise errors.ProtocolMismatchError("expected 1")
        name = request.actor.actor_id
        if not is_name(name) and self.fault != "actor-id":
            raise errors.InvalidRequestError("actor_id")
        if not request.environment.observation_leaves and self.fault != "empty-environment":
            raise errors.InvalidRequestError("environment")
        known = self._environment or request.environment
        if known != request.environment and self.fault != "empty-environment":
            raise errors.SpecMismatchError("environment", "the first", "another")
        self._environment = known
        if not 1 <= request.environment_slot_count <= 8 and self.fault != "slot-count":
            raise errors.InvalidRequestError("environment_slot_count")
        _, epoch, index = self._sessions.get(name, (0, 0, len(self._sessions)))
        epoch = epoch + 1 if self.fault != "fenced-session" else max(epoch, 1)
        self._sessions[name] = (request.actor.actor_run_id, epoch, index)
        self._taken[name] = 0
        leaves = [spec_pb2.UnrollLeaf(tensor=known.observation_leaves[0], rows=T + 1)]
        leaves += [
            spec_pb2.UnrollLeaf(
                tensor=tensor_pb2.TensorSpec(
                    name=leaf,
                    dtype=f"DTYPE_{dtype.upper()}",
                    shape=[2] if leaf == "behaviour_policy_logits" else [],
                ),
                rows=rows,
            )
            for leaf, (rows, dtype) in _TYPES.items()
        ]
        weights = [
            tensor_pb2.TensorSpec(name=one, dtype=tensor_pb2.DTYPE_FLOAT32, shape=shape)
            for one, shape in _WEIGHTS.items()
        ]
        return learner_pb2.RegisterResponse(
            learner=self._header(),
            session_epoch=epoch,
            actor_index=index,
            seed=9 if self.fault == "sessions" else 1000 * index + epoch,
            unroll=spec_pb2.UnrollSpec(
                unroll_length=T, leaves=leaves[:-1] if self.fault == "register" else leaves
            ),
            limits=learner_pb2.LearnerLimits(
                window=2, max_unrolls_per_message=8, max_message_bytes=MAX_BYTES
            ),
            weights=weights,
        )

    async def GetWeights(self, request: Any, context: Any) -> None:  # noqa: N802
        if request.learner_run_id not in (0, self._life) and self.fault != "learner-life":
            error = errors.StaleSessionError("another life")
            await context.abort_with_status(status_of(error))
        if request.min_version > 5 and self.fault != "weights-wait":
            await asyncio.sleep(request.max_wait.ToNanoseconds() / 1e9)
        data = self._snapshot()
        is_known = request.HasField("have_version") and request.have_version == 5
        header = learner_pb2.WeightsHeader(
            learner=self._header(),
            total_bytes=len(data),
            digest=xxhash.xxh3_64(data).intdigest() + (self.fault == "weights"),
            is_not_modified=is_known and self.fault != "weights-not-modified",
        )
        await context.write(learner_pb2.GetWeightsResponse(header=header))
        for start in range(0, 0 if header.is_not_modified else len(data), 1 << 20):
            chunk = data[start : start + (1 << 20)]
            await context.write(learner_pb2.GetWeightsResponse(chunk=chunk))

    def _snapshot(self) -> bytes:
        table, end = {}, 0
        for name, shape in _WEIGHTS.items():
            start, end = end, end + 4 * math.prod(shape)
            key = name.upper() if self.fault == "weights-tensors" else name
            table[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        head = json.dumps(table).encode()
        return struct.pack("<Q", len(head)) + head + bytes(end)

    async def PushUnrolls(self, unused_requests: Any, context: Any) -> None:  # noqa: N802
        try:
            await self._push(context)
        except errors.ImpalaError as error:
            await context.abort_with_status(status_of(error))

    async def _push(self, context: Any) -> None:
        request = await context.read()
        if request is grpc.aio.EOF or request.WhichOneof("payload") != "hello":
            if self.fault == "hello-first":
                return
            raise errors.InvalidRequestError("expected hello")
        if request.hello.learner_run_id != self._life and self.fault != "learner-life":
            raise errors.StaleSessionError("another life")
        actor = request.hello.actor
        self._require_session(actor)
        stopping = asyncio.create_task(self._stopping.wait())
        withheld: list[unroll_pb2.UnrollBatch] = []
        try:
            while True:
                read = asyncio.create_task(context.read())
                await asyncio.wait({read, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if self._stopping.is_set():
                    if self.fault != "drain":
                        reason = learner_pb2.DRAIN_REASON_STOPPING
                        drain = learner_pb2.Drain(learner=self._header(), reason=reason)
                        await context.write(learner_pb2.PushUnrollsResponse(drain=drain))
                    return
                request = read.result()
                if request is grpc.aio.EOF:
                    if self.fault == "half-closed":
                        self._taken[actor.actor_id] = 0
                    return
                kind = request.WhichOneof("payload")
                if kind == "goodbye":
                    if self.fault == "goodbye":
                        raise errors.StaleSessionError("bye")
                    return
                if kind != "unrolls":
                    if self.fault == "hello-twice":
                        return
                    raise errors.InvalidRequestError("expected unrolls or goodbye")
                self._require_session(actor)
                is_foreign = request.unrolls.actor != actor
                if is_foreign and self.fault != "foreign-session":
                    raise errors.InvalidRequestError("of another session")
                withheld.append(request.unrolls)
                if self.fault == "verdict-order" and len(withheld) < 2:
                    continue
                while withheld:
                    verdict = self._judge(withheld.pop())
                    await context.write(learner_pb2.PushUnrollsResponse(verdict=verdict))
        finally:
            stopping.cancel()

    def _require_session(self, actor: header_pb2.ActorHeader) -> None:
        run_id, epoch, _ = self._sessions.get(actor.actor_id, (0, 0, 0))
        is_known = actor.actor_id in self._sessions or self.fault == "unknown-session"
        is_same = (actor.actor_run_id, actor.session_epoch) == (run_id, epoch)
        is_lenient = self.fault in ("fenced-session", "unknown-session")
        if not is_known or not (is_same or is_lenient):
            raise errors.StaleSessionError("register again")

    def _judge(self, message: unroll_pb2.UnrollBatch) -> learner_pb2.Verdict:
        name, number = message.actor.actor_id, message.sequence_number
        if number and number <= self._taken.get(name, 0) and self.fault != "duplicate":
            outcome, text = "DUPLICATE", ""
        else:
            text = next((text for rule, text in self._faults(message) if rule != self.fault), "")
            outcome = "INVALID" if text else "ACCEPTED"
        if outcome == "ACCEPTED":
            self._taken[name] = number
        return learner_pb2.Verdict(
            learner=self._header(),
            sequence_number=number,
            outcome=f"VERDICT_OUTCOME_{outcome}",
            text=text,
        )

    def _faults(self, message: unroll_pb2.UnrollBatch) -> Any:
        if message.sequence_number < 1:
            yield "sequence-number", "sequence_number"
        if message.policy_version > 5 and self.fault != "verdict-header":
            yield "unroll-version", "policy_version"
        data = b"".join(leaf.data for leaf in message.leaves)
        if message.digest != xxhash.xxh3_64(data).intdigest():
            yield "unroll-digest", "digest"
        if len(message.leaves) != 1 + len(_TYPES) or message.unroll_count != 1:
            yield "unroll-shapes", "leaves"
            return
        for leaf, (name, (rows, dtype)) in zip(
            message.leaves, {"observation": (T + 1, "float32"), **_TYPES}.items(), strict=True
        ):
            plain = leaf.data
            if leaf.codec == tensor_pb2.CODEC_ZSTD:
                if self.fault == "unroll-zstd":
                    yield "", "no zstd"
                    return
                try:
                    plain = zstandard.ZstdDecompressor().decompress(plain)
                except zstandard.ZstdError:
                    yield "unroll-codec", "no zstd frame"
            elif leaf.codec:
                yield "unroll-codec", "codec"
            width = {"observation": 4, "behaviour_policy_logits": 2}.get(name, 1)
            size = rows * width * np.dtype(dtype).itemsize
            is_type = tensor_pb2.DType.Name(leaf.dtype) == f"DTYPE_{dtype.upper()}"
            if len(plain) != size or not is_type:
                yield "unroll-shapes", name
                continue
            values = np.frombuffer(plain, dtype)
            if dtype == "float32" and not np.isfinite(values).all():
                yield "unroll-numbers", name
            if name == "actions" and not ((values >= 0) & (values < 2)).all():
                yield "unroll-actions", name
