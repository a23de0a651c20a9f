"""The contract of GetWeights in learner.proto."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from raw_peer import ACCEPTED, WAIT_S, Peer, peer_of, refused
from running_server import RunningServer, make_config

from impala_common.codec.weights import digest_of_snapshot, unpack_snapshot
from impala_rl.v1 import learner_pb2

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with RunningServer(tmp_path / "run") as server, peer_of(server) as one:
        yield one


def test_get_weights_before_the_first_actor_is_unavailable(peer: Peer) -> None:
    with refused(grpc.StatusCode.UNAVAILABLE, "LEARNER_UNAVAILABLE", "waits for its first actor"):
        peer.get_weights()


def test_get_weights_of_a_large_network_comes_in_chunks(tmp_path: Path) -> None:
    config = make_config(model={"hidden_sizes": (640, 640)})
    with RunningServer(tmp_path, config) as server, peer_of(server) as peer:
        peer.register()

        header, chunks = peer.get_weights(learner_run_id=peer.learner_run_id)

        data = b"".join(chunks)
        assert len(chunks) > 3
        assert {len(chunk) for chunk in chunks[:-1]} == {1 << 20}
        assert 0 < len(chunks[-1]) <= 1 << 20
        assert header.total_bytes == len(data)
        assert header.digest == digest_of_snapshot(data)
        assert header.learner.policy_version == 0
        saved = server.weights()
        for name, array in unpack_snapshot(data).items():
            np.testing.assert_array_equal(array, saved[name], err_msg=name, strict=True)


def test_get_weights_with_the_newest_at_hand_is_not_modified(peer: Peer) -> None:
    peer.register()

    for version in (0, 5):
        header, chunks = peer.get_weights(have_version=version)
        assert header.is_not_modified
        assert chunks == []
        assert header.learner.policy_version == 0
    header, chunks = peer.get_weights()
    assert not header.is_not_modified
    assert chunks


def test_get_weights_with_min_version_waits_until_it_is_published(peer: Peer) -> None:
    """Seen to fail when new versions wake nobody."""
    peer.register()
    stream = peer.push().hello()
    request = learner_pb2.GetWeightsRequest(
        min_version=1, max_wait=duration_pb2.Duration(seconds=30)
    )
    waiting = peer.stub.GetWeights(request, timeout=WAIT_S)
    start_s = time.monotonic()

    assert stream.offer(peer.message()).outcome == ACCEPTED

    assert next(waiting).header.learner.policy_version == 1
    assert time.monotonic() - start_s < 5.0
    waiting.cancel()


@pytest.mark.parametrize(
    "max_wait",
    [
        None,
        duration_pb2.Duration(nanos=200_000_000),
        duration_pb2.Duration(seconds=-5),
    ],
)
def test_get_weights_when_min_version_does_not_come_in_time_sends_the_newest(
    peer: Peer, max_wait: Any
) -> None:
    peer.register()

    header, chunks = peer.get_weights(min_version=3, max_wait=max_wait)

    assert header.learner.policy_version == 0
    assert len(b"".join(chunks)) == header.total_bytes
