"""Assembling a weights transfer, with honest and hostile servers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import safetensors.numpy

from impala_common.codec.weights import digest_of_snapshot
from impala_common.codec.weights_transfer import assemble_weights, max_snapshot_bytes
from impala_common.errors import LearnerUnavailableError
from impala_common.spec.tensor_spec import TensorSpec
from impala_rl.v1 import learner_pb2

DATA = b"0123456789"
LIMIT = 1000


def _header(**changes: int | bool) -> learner_pb2.GetWeightsResponse:
    fields = {"total_bytes": len(DATA), "digest": digest_of_snapshot(DATA)} | changes
    return learner_pb2.GetWeightsResponse(header=learner_pb2.WeightsHeader(**fields))


def _chunks(data: bytes = DATA, size: int = 4) -> list[learner_pb2.GetWeightsResponse]:
    return [
        learner_pb2.GetWeightsResponse(chunk=data[start : start + size])
        for start in range(0, len(data), size)
    ]


def test_chunks_are_put_together() -> None:
    header, data = assemble_weights([_header(), *_chunks()], LIMIT)

    assert data == DATA
    assert header.total_bytes == len(DATA)


def test_newest_at_hand_needs_no_chunks() -> None:
    assert assemble_weights([_header(is_not_modified=True)], LIMIT).data is None


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], "ended a weights transfer early"),
        (_chunks(), "without a header"),
        ([_header(total_bytes=LIMIT + 1)], "announces 1001 bytes"),
        ([_header(total_bytes=-1)], "announces -1 bytes"),
        ([_header(), *_chunks()[:2]], "damaged"),
        ([_header(digest=1), *_chunks()], "damaged"),
        ([_header(), *_chunks(), *_chunks()], "longer than announced"),
        ([_header(), _header()], "without a chunk"),
        ([_header(), learner_pb2.GetWeightsResponse()], "without a chunk"),
    ],
)
def test_transfer_that_breaks_the_contract_is_refused(
    messages: list[learner_pb2.GetWeightsResponse], text: str
) -> None:
    with pytest.raises(LearnerUnavailableError, match=text):
        assemble_weights(messages, LIMIT)


def test_transfer_without_an_end_is_not_waited_for() -> None:
    """Seen to fail (it took all of it) without the count of bytes."""
    taken = 0

    def endless() -> Iterator[learner_pb2.GetWeightsResponse]:
        nonlocal taken
        yield _header()
        while True:
            taken += 1
            assert taken < 100
            yield learner_pb2.GetWeightsResponse(chunk=bytes(5))

    with pytest.raises(LearnerUnavailableError, match="longer than announced"):
        assemble_weights(endless(), LIMIT)


def test_limit_is_more_than_a_snapshot_has() -> None:
    arrays = {
        f"layer.{index}." + "x" * 300: np.zeros((index, 3), np.float32) for index in range(1, 60)
    }
    specs = [TensorSpec(name, array.shape, "float32") for name, array in arrays.items()]

    assert len(safetensors.numpy.save(arrays)) < max_snapshot_bytes(specs)
