"""Assembles a weights transfer: one header, then chunks.

Called by the actor's learner client for each GetWeights call. Memory is bounded for any sender:
chunks may not exceed the size in the header, and the header may not exceed the largest size of this
run's weights. No grpc.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from impala_common.codec.weights import digest_of_snapshot
from impala_common.errors import LearnerUnavailableError
from impala_common.process import failpoints
from impala_common.spec.tensor_spec import TensorSpec
from impala_rl.v1 import learner_pb2

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
    messages = iter(responses)
    first = next(messages, None)
    if first is None:
        raise LearnerUnavailableError("the learner ended a weights transfer early")
    if first.WhichOneof("payload") != "header":
        raise LearnerUnavailableError("a weights transfer began without a header")
    header = first.header
    if header.is_not_modified:
        return WeightsTransfer(header, None)
    if not 0 <= header.total_bytes <= max_bytes:
        raise LearnerUnavailableError(
            f"a weights transfer announces {header.total_bytes} bytes: weights of this run have "
            f"at most {max_bytes}"
        )
    data = b"".join(_take_chunks(messages, header.total_bytes))
    if len(data) != header.total_bytes or digest_of_snapshot(data) != header.digest:
        raise LearnerUnavailableError("a weights transfer was damaged on its way")
    return WeightsTransfer(header, data)


def _take_chunks(
    messages: Iterator[learner_pb2.GetWeightsResponse], num_bytes: int
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
