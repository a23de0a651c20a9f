"""Rules of a learner about GetWeights: header, chunks, digest, tensors, waiting."""

from __future__ import annotations

import json
import struct
import time

from google.protobuf import duration_pb2

from impala_conformance.learner_peer import LearnerPeer
from impala_conformance.rule import Rule, require
from impala_conformance.unroll_maker import compute_digest
from impala_rl.v1 import learner_pb2, tensor_pb2

_CHUNKS = "weights are a header and chunks of at most 1 MiB, of the size and digest it says"
_TENSORS = "the snapshot is safetensors with the tensors that Register said"
_NOT_MODIFIED = "who has the newest version gets is_not_modified and no chunk"
_WAITED = "min_version waits for max_wait and then gets the newest there is"
_CHUNK_BYTES = 1 << 20
_WAIT_S = 0.5
_FAR = 1 << 40
_DTYPES = {
    "F32": tensor_pb2.DTYPE_FLOAT32,
    "F64": tensor_pb2.DTYPE_FLOAT64,
    "F16": tensor_pb2.DTYPE_FLOAT16,
    "I64": tensor_pb2.DTYPE_INT64,
    "I32": tensor_pb2.DTYPE_INT32,
    "U8": tensor_pb2.DTYPE_UINT8,
    "BOOL": tensor_pb2.DTYPE_BOOL,
}


def _check_chunks(peer: LearnerPeer) -> None:
    actor = peer.actor()
    header, chunks = peer.get_weights(learner_run_id=actor.registered.learner.learner_run_id)
    _require_whole(header, chunks)
    life = actor.registered.learner.learner_run_id
    require(header.learner.learner_run_id == life, f"life {life}", header.learner.learner_run_id)


def _check_tensors(peer: LearnerPeer) -> None:
    actor = peer.actor()
    header, chunks = peer.get_weights()
    data = b"".join(chunks)
    _require_whole(header, chunks)
    (length,) = struct.unpack("<Q", data[:8])
    require(8 + length <= len(data), "a safetensors header within the data", length)
    table = json.loads(data[8 : 8 + length])
    table.pop("__metadata__", None)
    found = {name: (_DTYPES.get(one["dtype"]), list(one["shape"])) for name, one in table.items()}
    said = {spec.name: (spec.dtype, list(spec.shape)) for spec in actor.registered.weights}
    require(found == said, f"tensors {said}", found)


def _check_not_modified(peer: LearnerPeer) -> None:
    peer.actor()
    for _ in range(5):  # versions may come in between
        header, _ = peer.get_weights()
        newest = header.learner.policy_version
        header, chunks = peer.get_weights(have_version=newest)
        if header.learner.policy_version == newest:
            break
    require(header.is_not_modified, f"is_not_modified for version {newest}", header)
    require(not chunks, "no chunk", len(chunks))
    header, chunks = peer.get_weights(have_version=-1)
    require(not header.is_not_modified, "weights for version -1", "is_not_modified")


def _check_waited(peer: LearnerPeer) -> None:
    peer.actor()
    wait = duration_pb2.Duration()
    wait.FromMilliseconds(int(1000 * _WAIT_S))
    start_s = time.monotonic()
    header, chunks = peer.get_weights(min_version=_FAR, max_wait=wait)
    waited_s = time.monotonic() - start_s
    require(waited_s >= 0.9 * _WAIT_S, f"a wait of {_WAIT_S:g} s", f"{waited_s:.2f} s")
    _require_whole(header, chunks)


def _require_whole(header: learner_pb2.WeightsHeader, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    largest = max(map(len, chunks), default=0)
    require(0 < largest <= _CHUNK_BYTES, f"chunks of at most {_CHUNK_BYTES} bytes", largest)
    require(len(data) == header.total_bytes, f"{header.total_bytes} bytes", len(data))
    digest = compute_digest(data)
    require(digest == header.digest, f"the digest of the data, {digest}", header.digest)


RULES: list[Rule[LearnerPeer]] = [
    Rule("weights", _CHUNKS, _check_chunks),
    Rule("weights-tensors", _TENSORS, _check_tensors),
    Rule("weights-not-modified", _NOT_MODIFIED, _check_not_modified),
    Rule("weights-wait", _WAITED, _check_waited),
]
