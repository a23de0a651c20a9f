"""Protocol versions that differ, and unknown fields (docs/faults.md, 63)."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from faults.row_figures import record
from raw_peer import ACCEPTED, peer_of, refused
from running_server import RunningServer

from impala_rl.v1 import learner_pb2, unroll_pb2
from impala_server.front_end.listener import protocol_version

UNKNOWN = b"\xc2\x3e\x05hello" + b"\xc8\x3e\x07"  # fields 1000 (bytes) and 1001 (varint)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    with RunningServer(tmp_path_factory.mktemp("versions")) as running:
        yield running


@pytest.mark.parametrize("oldest", [1, 2, 3])
@pytest.mark.parametrize("version", [0, 1, 2, 3, 4])
def test_register_takes_the_versions_of_its_range_and_names_who_must_upgrade(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, oldest: int, version: int
) -> None:
    """A learner of version 3 that still takes `oldest`: N-2 and N-1 work where it says so."""
    monkeypatch.setattr(protocol_version, "PROTOCOL_VERSION", 3)
    monkeypatch.setattr(protocol_version, "OLDEST_PROTOCOL_VERSION", oldest)
    with peer_of(server) as peer:
        if oldest <= version <= 3:
            assert peer.register(protocol_version=version).session_epoch >= 1
            record(63, server=f"{oldest} to 3", client=version, outcome="OK")
            return
        older = "learner" if version > 3 else "client"
        with refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "PROTOCOL_MISMATCH",
            f"got {version}; upgrade impala-rl on the {older}'s side",
        ):
            peer.register(protocol_version=version)
        record(63, server=f"{oldest} to 3", client=version, outcome="FAILED_PRECONDITION")


def test_fields_nobody_knows_are_ignored(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server, peer_of(server) as peer:
        real = peer.stub.Register
        peer.stub.Register = lambda request, timeout: real(_strange(request), timeout=timeout)
        peer.register()
        message = _strange(peer.message(1))
        message.leaves[0].MergeFromString(UNKNOWN)
        message.actor.MergeFromString(UNKNOWN)
        stream = peer.push().hello()

        assert stream.offer(message).outcome == ACCEPTED
        request = _strange(learner_pb2.GetWeightsRequest())
        first, *rest = peer.stub.GetWeights(request, timeout=10.0)
        assert first.header.total_bytes == sum(len(response.chunk) for response in rest)
    record(63, unknown_fields="ignored")


def _strange(message: object) -> unroll_pb2.UnrollBatch:
    message.MergeFromString(UNKNOWN)
    assert UNKNOWN in message.SerializeToString()
    return message
