"""Fuzz targets: functions that accept any bytes from a client and may only refuse them.

Each target runs the product's code on the input as it comes and, where a digest would
stop everything else at the door, on the input with its digest put right. An error of the
project (ImpalaError) or of protobuf's parser is a refusal; anything else that is raised,
and any broken promise about what was let through, is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError, Message

from impala_common.codec.bounds_table import Exempt, Items, Number, Text
from impala_common.codec.field_bounds import BOUNDS, find_violation
from impala_common.codec.response_bounds import RESPONSE_BOUNDS, checked_response
from impala_common.codec.specs import pack_environment_spec, unpack_environment_spec
from impala_common.codec.tensors import digest_of
from impala_common.codec.unrolls import UnrollDecoder
from impala_common.codec.weights import digest_of_snapshot, unpack_snapshot
from impala_common.codec.weights_transfer import assemble_weights
from impala_common.errors import ImpalaError
from impala_common.run.checkpoint_manifest import (
    Manifest,
    _compute_digest,
    pack_manifest,
    unpack_manifest,
)
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec, UnrollSpec
from impala_common.testing.unrolls import (
    make_frames_spec,
    make_unrolls,
    make_vector_spec,
    pack_stacked,
)
from impala_rl.v1 import admin_pb2, evaluation_pb2, learner_pb2, spec_pb2, unroll_pb2

SPECS = (make_vector_spec(), make_frames_spec())
"""What the decoder expects; the first byte of an input chooses."""

REQUESTS: dict[str, Any] = {  # Any: classes of messages
    name: getattr(module, name)
    for module in (admin_pb2, evaluation_pb2, learner_pb2)
    for name in module.DESCRIPTOR.message_types_by_name
    if name.endswith("Request")
}
"""Requests of all services by name; the first byte of an input chooses."""
RESPONSES: dict[str, Any] = {  # Any: classes of messages
    name: getattr(module, name)
    for module in (admin_pb2, evaluation_pb2, learner_pb2)
    for name in module.DESCRIPTOR.message_types_by_name
    if name.endswith("Response")
}
"""Responses likewise, which a broken or hostile learner may send."""
_BOUNDS = BOUNDS | RESPONSE_BOUNDS

_MAX_UNROLLS = 4
_MAX_SNAPSHOT_BYTES = 1 << 16


class Target(NamedTuple):
    """One target.

    Attributes:
      name: as on the command line and in docs/results/fuzz.json.
      run: takes one input; returns whether it was let through.
      seeds: good inputs to begin with.
    """

    name: str
    run: Callable[[bytes], bool]
    seeds: Callable[[], list[bytes]]


def decode_unrolls(data: bytes) -> bool:
    """UnrollDecoder: the door to rollout storage."""
    spec = SPECS[data[0] % len(SPECS)] if data else SPECS[0]
    try:
        message = unroll_pb2.UnrollBatch.FromString(data[1:])
        if not data or data[0] < 128:
            tensors = [*message.leaves, message.frames.unique_frames, message.frames.frame_index]
            message.digest = digest_of(tensor.data for tensor in tensors)
        unrolls = UnrollDecoder(spec, _MAX_UNROLLS).decode(message)
    except (DecodeError, ImpalaError):
        return False
    assert 1 <= unrolls.num_unrolls <= _MAX_UNROLLS
    for leaf in spec.leaves[1 if spec.uses_unique_frames else 0 :]:
        array = unrolls.leaves[leaf.tensor.name]
        assert array.shape == leaf.shape(spec.unroll_length, unrolls.num_unrolls)
        assert array.dtype == leaf.tensor.dtype
        assert array.dtype.kind != "f" or np.isfinite(array).all()
    if unrolls.frames is not None:
        assert unrolls.frames.counts.sum() == len(unrolls.frames.frames)
        assert (unrolls.frames.frame_index < unrolls.frames.counts[None, :, None]).all()
    return True


def validate_spec(data: bytes) -> bool:
    """The specification an actor registers with, from which the learner builds all it has."""
    try:
        spec = unpack_environment_spec(spec_pb2.EnvironmentSpec.FromString(data))
    except (DecodeError, ImpalaError):
        return False
    assert unpack_environment_spec(pack_environment_spec(spec)) == spec
    assert EnvironmentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert UnrollSpec(4, spec).num_bytes > 0
    return True


def hold_bounds(data: bytes) -> bool:
    """The door of every request: what passes has every field within its bound."""
    names = sorted(REQUESTS)
    try:
        message = REQUESTS[names[data[0] % len(names)] if data else names[0]].FromString(data[1:])
    except DecodeError:
        return False
    if find_violation(message):
        return False
    _assert_bounded(message)
    return True


def hold_response_bounds(data: bytes) -> bool:
    """The door of every response: as `hold_bounds`, for what a learner sends to clients."""
    names = sorted(RESPONSES)
    try:
        message = RESPONSES[names[data[0] % len(names)] if data else names[0]].FromString(data[1:])
        checked_response(message)
    except (DecodeError, ImpalaError):
        return False
    _assert_bounded(message)
    return True


def _assert_bounded(message: Message) -> None:
    """Judges set fields by the table alone, without the door's code."""
    for field, value in message.ListFields():
        bound = _BOUNDS.get(message.DESCRIPTOR.name, {}).get(field.name)
        if isinstance(bound, Exempt):
            continue
        values = value if field.is_repeated else [value]
        if isinstance(bound, Items):
            assert len(values) <= bound.max_count
            bound = bound.each
        for one in values:
            if isinstance(one, Message):
                _assert_bounded(one)
            elif isinstance(bound, Text):
                assert len(one) <= bound.max_chars
            else:
                assert isinstance(bound, Number)
                assert bound.low <= one <= bound.high


def load_manifest(data: bytes) -> bool:
    """manifest.json of a checkpoint from somewhere else."""
    path = Path("manifest.json")
    if data[:1] != b" ":
        data = _with_digest(data)
    try:
        manifest = unpack_manifest(path, data)
    except ImpalaError:
        return False
    assert manifest.step == int(manifest.step)
    for file in manifest.files:
        assert "/" not in file
        assert file.endswith(".safetensors")
    return unpack_manifest(path, pack_manifest(manifest)) == manifest


def assemble_chunks(data: bytes) -> bool:
    """The actor's side of a weights transfer, and what is read out of the snapshot."""
    try:
        messages = [learner_pb2.GetWeightsResponse.FromString(piece) for piece in _pieces(data)]
        if messages and data[0] < 128 and messages[0].WhichOneof("payload") == "header":
            snapshot = b"".join(message.chunk for message in messages[1:])
            messages[0].header.total_bytes = len(snapshot)
            messages[0].header.digest = digest_of_snapshot(snapshot)
        header, snapshot_or_none = assemble_weights(messages, _MAX_SNAPSHOT_BYTES)
        if snapshot_or_none is None:
            return header.is_not_modified
        assert len(snapshot_or_none) <= _MAX_SNAPSHOT_BYTES
        for array in unpack_snapshot(snapshot_or_none).values():
            assert array.nbytes <= len(snapshot_or_none)
    except (DecodeError, ImpalaError):
        return False
    return True


def _with_digest(data: bytes) -> bytes:
    """Returns a manifest whose own digest is right; what is no JSON object as it is."""
    try:
        content = json.loads(data)
        content.pop("manifest_sha256", None)
        return json.dumps(content | {"manifest_sha256": _compute_digest(content)}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return data


def _pieces(data: bytes) -> list[bytes]:
    """Cuts an input into messages: one byte that is skipped, then two bytes of length each."""
    pieces, start = [], 1
    while start + 2 <= len(data) and len(pieces) < 64:
        end = start + 2 + int.from_bytes(data[start : start + 2], "little")
        pieces.append(data[start + 2 : end])
        start = end
    return pieces


def _unroll_seeds() -> list[bytes]:
    seeds = []
    for index, spec in enumerate(SPECS):
        for num_unrolls, compress in ((1, False), (2, True)):
            unrolls = make_unrolls(spec, num_unrolls, seed=index + 1)
            message = pack_stacked(unrolls, spec, compress)
            seeds.append(bytes([index]) + message.SerializeToString())
    return seeds


def _request_seeds() -> list[bytes]:
    push = learner_pb2.PushUnrollsRequest()
    push.unrolls.ParseFromString(_unroll_seeds()[0][1:])
    push.unrolls.episodes.add(episode_return=3.5, step_count=7)
    register = learner_pb2.RegisterRequest(host="host", environment_slot_count=4)
    register.environment.ParseFromString(_spec_seeds()[2])
    report = evaluation_pb2.ReportEvaluationRequest(evaluator_id="judge", candidate="c-1")
    report.sampled.episode_count, report.sampled.return_mean = 4, 1.5
    report.duration.seconds = 3
    change = admin_pb2.SetParameterRequest(name="learning_rate", value="0.1")
    change.header.request_id = "a1"
    names = sorted(REQUESTS)
    return [
        bytes([names.index(message.DESCRIPTOR.name)]) + message.SerializeToString()
        for message in (push, register, report, change)
    ]


def _response_seeds() -> list[bytes]:
    register = learner_pb2.RegisterResponse(session_epoch=1, seed=7)
    register.model.hidden_sizes.extend([64, 64])
    register.unroll.unroll_length = 20
    register.limits.window = register.limits.max_unrolls_per_message = 2
    register.limits.max_message_bytes = 1 << 26
    status = admin_pb2.GetStatusResponse()
    status.status.metrics["loss/total"] = 0.5
    status.status.findings.append("entropy is low")
    candidate = evaluation_pb2.WatchCandidatesResponse(ticket=7)
    candidate.candidate.name, candidate.candidate.episode_count = "c-1", 4
    verdict = learner_pb2.PushUnrollsResponse()
    verdict.verdict.sequence_number, verdict.verdict.outcome = 3, 1  # type: ignore[assignment]
    names = sorted(RESPONSES)
    return [
        bytes([names.index(message.DESCRIPTOR.name)]) + message.SerializeToString()
        for message in (register, status, candidate, verdict)
    ]


def _spec_seeds() -> list[bytes]:
    position = TensorSpec("observation/position", (3,), "float32")
    image = TensorSpec("observation/image", (8, 8, 3), "uint8")
    several = EnvironmentSpec((image, position), ActionSpec.discrete(4))
    specs = [spec.environment for spec in SPECS] + [several]
    messages = [pack_environment_spec(spec) for spec in specs]
    messages.append(spec_pb2.EnvironmentSpec())
    messages[-1].CopyFrom(messages[0])
    part = messages[-1].action.parts[0]
    part.kind, part.tensor.dtype = 3, 11  # gaussian, float32
    del part.sizes[:], part.starts[:]
    part.lows.append(-1.0)
    part.highs.append(float("inf"))
    return [message.SerializeToString() for message in messages]


def _manifest_seeds() -> list[bytes]:
    files = {"weights.safetensors": ("0" * 64, 12), "optimizer.safetensors": ("f" * 64, 0)}
    state = {"policy_version": 3, "rng": [1, 2, 3], "settings": {"lr": 0.1, "name": "x\u00fc"}}
    return [
        pack_manifest(Manifest(step=7, state=state, files=files)),
        pack_manifest(Manifest(step=2**62, state={}, files={})),
    ]


def _chunk_seeds() -> list[bytes]:
    import safetensors.numpy

    arrays = {
        "w": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.zeros(3, np.float64),
        "n": np.array([True, False]),
    }
    snapshot = safetensors.numpy.save(arrays)
    header = learner_pb2.WeightsHeader(
        total_bytes=len(snapshot), digest=digest_of_snapshot(snapshot)
    )
    seeds = []
    for size in (len(snapshot), 50):
        messages = [learner_pb2.GetWeightsResponse(header=header)]
        messages += [
            learner_pb2.GetWeightsResponse(chunk=snapshot[start : start + size])
            for start in range(0, len(snapshot), size)
        ]
        seeds.append(b"\0" + b"".join(_piece(message) for message in messages))
    foreign = snapshot.replace(b'"F32"', b'"I32"')
    seeds.append(seeds[0].replace(snapshot, foreign))
    header.is_not_modified = True
    seeds.append(b"\0" + _piece(learner_pb2.GetWeightsResponse(header=header)))
    return seeds


def _piece(message: learner_pb2.GetWeightsResponse) -> bytes:
    data = message.SerializeToString()
    return len(data).to_bytes(2, "little") + data


TARGETS = {
    target.name: target
    for target in (
        Target("unroll_decoder", decode_unrolls, _unroll_seeds),
        Target("spec_validator", validate_spec, _spec_seeds),
        Target("field_bounds", hold_bounds, _request_seeds),
        Target("response_bounds", hold_response_bounds, _response_seeds),
        Target("manifest_loader", load_manifest, _manifest_seeds),
        Target("chunk_assembler", assemble_chunks, _chunk_seeds),
    )
}
