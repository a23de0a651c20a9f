"""Assembles a weights transfer: one header, then chunks.

Called by clients for each GetWeights and each GetCandidateWeights call. Whatever the other
side sends, no more is kept than the header announces, and no more is announced
than weights of this run can have. No grpc.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from impala_common.codec.weights import digest_of_snapshot
from impala_common.errors import LearnerUnavailableError
from impala_common.process import failpoints
from impala_common.spec.tensor_spec import TensorSpec
from impala_rl.v1 import evaluation_pb2, learner_pb2

_HEADER_BYTES = 4096
_HEADER_BYTES_PER_TENSOR = 256


class WeightsTransfer(NamedTuple):
    """A received transfer.

    Attributes:
      header: describes the snapshot.
      data: the snapshot; None if the caller has the newest version.
    """

    header: learner_pb2.WeightsHeader
    data: bytes | None


def max_snapshot_bytes(weights: Sequence[TensorSpec]) -> int:
    """Returns an upper bound of the size of a snapshot of these tensors, with its header."""
    tables = sum(_HEADER_BYTES_PER_TENSOR + 6 * len(spec.name) for spec in weights)
    return _HEADER_BYTES + tables + sum(spec.num_bytes for spec in weights)


def assemble_weights(
    responses: Iterable[learner_pb2.GetWeightsResponse], max_bytes: int
) -> WeightsTransfer:
    """Returns the snapshot that arrives in `responses`.

    Args:
      responses: the messages of one call, in order.
      max_bytes: largest size of a snapshot of this run.

    Raises:
      LearnerUnavailableError: the transfer broke the contract or was damaged; a second may succeed.
    """
    header, data = _assemble(responses, max_bytes)
    return WeightsTransfer(header, data)


def assemble_candidate(
    responses: Iterable[evaluation_pb2.GetCandidateWeightsResponse], max_bytes: int
) -> bytes:
    """Returns the snapshot of a candidate; as `assemble_weights`."""
    data = _assemble(responses, max_bytes)[1]
    assert data is not None, "its header cannot say that the newest is at hand"
    return data


def _assemble(responses: Iterable[Any], max_bytes: int) -> tuple[Any, bytes | None]:
    """Returns header and snapshot of one call. Any: messages of either service."""
    messages = iter(responses)
    first = next(messages, None)
    if first is None:
        raise LearnerUnavailableError("the learner ended a weights transfer early")
    if first.WhichOneof("payload") != "header":
        raise LearnerUnavailableError("a weights transfer began without a header")
    header = first.header
    if getattr(header, "is_not_modified", False):
        return header, None
    if not 0 <= header.total_bytes <= max_bytes:
        raise LearnerUnavailableError(
            f"a weights transfer announces {header.total_bytes} bytes: weights of this run have "
            f"at most {max_bytes}"
        )
    data = b"".join(_take_chunks(messages, header.total_bytes))
    if len(data) != header.total_bytes or digest_of_snapshot(data) != header.digest:
        raise LearnerUnavailableError("a weights transfer was damaged on its way")
    return header, data


def _take_chunks(
    messages: Iterator[Any],
    num_bytes: int,  # Any: messages of either service
) -> Iterator[bytes]:
    """Yields chunks; stops once they have too many bytes."""
    for message in messages:
        failpoints.hit("actor.weights_mid_stream")
        chunk = message.chunk  # once: each access copies
        if not chunk:
            raise LearnerUnavailableError("a weights transfer has a message without a chunk")
        num_bytes -= len(chunk)
        if num_bytes < 0:
            raise LearnerUnavailableError("a weights transfer is longer than announced")
        yield chunk
