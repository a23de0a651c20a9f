"""The front end's copy of the newest weights: whole, made once per version, and only once there."""

from __future__ import annotations

import mmap
import tracemalloc
from typing import Any

import numpy as np
import safetensors.numpy

from impala_common.codec.weights import SnapshotLayout, digest_of_snapshot
from impala_common.codec.weights_transfer import assemble_weights
from impala_rl.v1 import header_pb2, learner_pb2
from impala_server.front_end.data_plane.weights_cache import WeightsCache
from impala_server.storage.weights_block import WeightsReader, WeightsWriter, weights_block_bytes


def make_cache(num_bytes: int) -> tuple[WeightsWriter, WeightsCache]:
    layout = SnapshotLayout({"w": np.zeros(num_bytes // 4, np.float32)})
    buffer = memoryview(mmap.mmap(-1, weights_block_bytes(layout.num_bytes)))
    return WeightsWriter(buffer, layout), WeightsCache(WeightsReader(buffer))


def publish(writer: WeightsWriter, version: int) -> dict[str, Any]:
    target = writer.begin()
    weights = writer.buffers[target]["w"]
    weights[:] = np.random.default_rng(version).standard_normal(weights.shape)
    writer.commit(target, version, trained_steps=0)
    return {"w": weights.copy()}


def test_newest_is_what_was_published_cut_into_messages_of_a_mebibyte() -> None:
    writer, cache = make_cache(2_500_000)
    published = publish(writer, 3)

    served = cache.newest()

    header = learner_pb2.WeightsHeader(
        learner=header_pb2.LearnerHeader(policy_version=served.policy_version),
        total_bytes=served.num_bytes,
        digest=served.digest,
    )
    responses = [learner_pb2.GetWeightsResponse(header=header)]
    responses += [learner_pb2.GetWeightsResponse.FromString(data) for data in served.messages]
    assert [len(response.chunk) >> 20 for response in responses] == [0, 1, 1, 0]
    data = assemble_weights(responses, served.num_bytes).data
    assert data is not None
    assert served.policy_version == 3
    assert served.digest == digest_of_snapshot(data)
    np.testing.assert_array_equal(safetensors.numpy.load(data)["w"], published["w"])


def test_newest_is_serialised_once_for_each_version() -> None:
    writer, cache = make_cache(1000)
    publish(writer, 1)

    first = cache.newest()

    assert cache.newest() is first
    publish(writer, 2)
    assert cache.newest().policy_version == 2


def test_newest_of_the_next_version_takes_no_more_memory_than_one_version_has() -> None:
    """Seen to fail with the last version kept until the next one is there."""
    num_bytes = 16 << 20
    writer, cache = make_cache(num_bytes)
    tracemalloc.start()
    try:
        publish(writer, 1)
        cache.newest()
        publish(writer, 2)
        tracemalloc.reset_peak()

        cache.newest()

        assert tracemalloc.get_traced_memory()[1] < 1.5 * num_bytes
    finally:
        tracemalloc.stop()
