"""The contract in learner.proto, except PushUnrolls (test_push_stream.py) and GetWeights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from raw_peer import ACCEPTED, ENVIRONMENT, WAIT_S, Peer, assert_alive, peer_of, reason_of, refused
from running_server import RunningServer, make_config

from impala_common.errors import AddressInUseError, LearnerUnavailableError, RunInUseError
from impala_common.rpc.errors import error_from
from impala_common.rpc.limits import MAX_MESSAGE_BYTES
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
from impala_rl.v1 import header_pb2, learner_pb2
from impala_server.front_end.learner_link import LearnerLink
from impala_server.supervisor import Supervisor

pytestmark = pytest.mark.timeout(60)

TWO = ActionSpec.discrete(2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "run") as running:
        yield running


@pytest.fixture
def peer(server: RunningServer) -> Iterator[Peer]:
    with peer_of(server) as one:
        yield one


def test_register_of_two_actors_gives_each_index_and_seed_of_its_own(
    server: RunningServer, peer: Peer
) -> None:
    with peer_of(server, "other", 12) as other:
        one, two = peer.register(), other.register()

    assert [one.actor_index, two.actor_index] == [0, 1]
    assert one.seed != two.seed
    assert one.learner.learner_run_id == two.learner.learner_run_id != 0
    assert one.unroll == two.unroll
    assert one.limits.window == 2
    assert one.limits.max_message_bytes == MAX_MESSAGE_BYTES
    assert one.limits.max_unrolls_per_message >= 8


def test_register_again_fences_the_older_life(server: RunningServer, peer: Peer) -> None:
    """Seen to fail with sessions that are found by actor_id alone."""
    first = peer.register()
    old_stream = peer.push().hello()
    assert old_stream.offer(peer.message()).outcome == ACCEPTED
    old_actor = header_pb2.ActorHeader()
    old_actor.CopyFrom(peer.actor)
    with peer_of(server, "peer", run_id=12) as newer:
        second = newer.register()
        assert second.session_epoch == first.session_epoch + 1
        assert second.actor_index == first.actor_index
        assert second.seed != first.seed

        old_stream.send(unrolls=peer.message())
        new_old_stream = peer.push().hello(actor=old_actor)

        for stream in (old_stream, new_old_stream):
            assert reason_of(stream.end())[:2] == (grpc.StatusCode.ABORTED, "STALE_SESSION")
        assert newer.push().hello().offer(newer.message()).outcome == ACCEPTED


def test_hello_to_another_learner_life_is_stale(peer: Peer) -> None:
    peer.register()

    stream = peer.push().hello(learner_run_id=peer.learner_run_id + 1)

    assert reason_of(stream.end())[:2] == (grpc.StatusCode.ABORTED, "STALE_SESSION")
    with refused(grpc.StatusCode.ABORTED, "STALE_SESSION"):
        peer.get_weights(learner_run_id=peer.learner_run_id + 1)


@pytest.mark.parametrize(
    ("environment", "field", "expected", "actual"),
    [
        (
            EnvironmentSpec((TensorSpec("observation", (5,), "float32"),), TWO),
            "observation.shape",
            "(4,)",
            "(5,)",
        ),
        (
            EnvironmentSpec((TensorSpec("observation", (4,), "float64"),), TWO),
            "observation.dtype",
            "float32",
            "float64",
        ),
        (
            EnvironmentSpec(ENVIRONMENT.observation_leaves, ActionSpec.discrete(3)),
            "action.sizes",
            "(2,)",
            "(3,)",
        ),
        (
            EnvironmentSpec(ENVIRONMENT.observation_leaves, ActionSpec.discrete(2, start=1)),
            "action.starts",
            "(0,)",
            "(1,)",
        ),
        (
            EnvironmentSpec((TensorSpec("observation/a", (4,), "float32"),), TWO),
            "observation leaves",
            "['observation']",
            "['observation/a']",
        ),
    ],
)
def test_register_with_another_environment_names_field_expected_and_got(
    server: RunningServer,
    peer: Peer,
    environment: EnvironmentSpec,
    field: str,
    expected: str,
    actual: str,
) -> None:
    with peer_of(server, "first") as first:
        first.register()

    with refused(grpc.StatusCode.FAILED_PRECONDITION, "SPEC_MISMATCH") as facts:
        peer.register(environment)

    assert facts == {"field": field, "expected": expected, "actual": actual}


def test_register_with_another_environment_names_the_one_that_is_trained(tmp_path: Path) -> None:
    """Seen to fail: shapes alone do not tell which --env is right."""
    config = make_config(environment={"env": "CartPole-v1"})
    other = EnvironmentSpec(ENVIRONMENT.observation_leaves, ActionSpec.discrete(3))
    with RunningServer(tmp_path / "run", config) as server:
        with peer_of(server, "first") as first:
            first.register()
        with (
            peer_of(server, "second") as second,
            refused(grpc.StatusCode.FAILED_PRECONDITION, "SPEC_MISMATCH") as facts,
        ):
            second.register(other)

    assert facts["expected"] == "(2,) (this learner trains CartPole-v1)"


def test_register_with_another_protocol_version_is_refused(
    server: RunningServer, peer: Peer
) -> None:
    for version in (0, 2):
        with refused(
            grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_MISMATCH", f"expected 1, got {version}"
        ):
            peer.register(protocol_version=version)

    assert not server.run.specs_path.exists(), "a refused actor has defined the run"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"actor": header_pb2.ActorHeader(actor_id="a\n")}, "actor_id"),
        ({"actor": None}, "actor_id"),
        ({"environment": None}, "observation_leaves: expected 1 to 256"),
    ],
)
def test_register_with_malformed_request_is_refused_and_defines_nothing(
    server: RunningServer, peer: Peer, changes: dict[str, Any], text: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", text):
        peer.register(**changes)

    assert not server.run.specs_path.exists()
    assert_alive(server)


@pytest.mark.parametrize("count", [0, -1, 2000])
def test_register_with_impossible_number_of_slots_is_refused(peer: Peer, count: int) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", f"got {count}"):
        peer.register(environment_slot_count=count)


def test_register_of_observations_larger_than_a_message_is_refused(
    server: RunningServer, peer: Peer
) -> None:
    """Once brought the learner down: its storage would have had terabytes."""
    huge = EnvironmentSpec((TensorSpec("observation", (1 << 27,), "float64"),), TWO)

    with refused(
        grpc.StatusCode.FAILED_PRECONDITION, "UNSUPPORTED_SPACE", "smaller --unroll-length"
    ):
        peer.register(huge)

    assert_alive(server)


def test_register_when_max_actors_are_connected_is_refused_until_one_leaves(
    tmp_path: Path,
) -> None:
    config = make_config(transport={"max_actors": 1})
    with (
        RunningServer(tmp_path, config) as server,
        peer_of(server, "one") as one,
        peer_of(server, "two") as two,
    ):
        one.register()
        stream = one.push().hello()
        assert stream.offer(one.message()).outcome == ACCEPTED
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPACITY", "max_actors"):
            two.register()

        stream.send(goodbye=learner_pb2.PushGoodbye(text="bye"))
        stream.half_close()
        with pytest.raises(StopIteration):
            stream.next()

        assert two.register().actor_index == 1


def test_get_config_says_how_environments_are_made(tmp_path: Path) -> None:
    config = make_config(environment={"envs_per_actor": 5, "atari_frame_skip": 3})
    with RunningServer(tmp_path, config) as server, peer_of(server) as peer:
        response = peer.stub.GetConfig(learner_pb2.GetConfigRequest(), timeout=WAIT_S)

    assert response.protocol_version == 1
    assert response.environment_slot_count == 5
    assert response.environment_options.atari_frame_skip == 3
    assert not response.environment_options.HasField("atari_sticky_action_probability")


def test_field_beyond_its_bound_is_refused_at_the_door_of_each_service(
    server: RunningServer, peer: Peer
) -> None:
    """Seen to fail: a leaf's name of 20 MB became part of every checkpoint's manifest."""
    leaf = TensorSpec("observation/" + "x" * 20_000_000, (4,), "float32")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "leaves.name: expected"):
        peer.register(EnvironmentSpec((leaf,), TWO))
    peer.register()
    longest = duration_pb2.Duration(seconds=-(2**63), nanos=-(2**31))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "max_wait.seconds"):
        peer.get_weights(max_wait=longest)
    stream = peer.push()
    stream.hello(actor=header_pb2.ActorHeader(actor_id="x" * 65))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "actor_id: expected"):
        stream.next()

    assert_alive(server)


@pytest.mark.parametrize("method", ["GetConfig", "Register", "GetWeights", "PushUnrolls"])
@pytest.mark.parametrize("seed", range(4))
def test_any_method_with_bytes_that_are_no_message_leaves_the_server_alive(
    server: RunningServer, peer: Peer, method: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    good = {
        "GetConfig": learner_pb2.GetConfigRequest(actor=peer.actor, protocol_version=1),
        "Register": learner_pb2.RegisterRequest(actor=peer.actor, protocol_version=1),
        "GetWeights": learner_pb2.GetWeightsRequest(learner_run_id=3, min_version=1),
        "PushUnrolls": learner_pb2.PushUnrollsRequest(
            hello=learner_pb2.PushHello(actor=peer.actor, learner_run_id=3)
        ),
    }[method].SerializeToString()
    flipped = bytearray(good)
    flipped[int(random.integers(len(good)))] ^= 1 << int(random.integers(8))
    path = f"/impala_rl.v1.LearnerService/{method}"

    for data in (random.bytes(200), b"\xff" * 50, good[:-1], bytes(flipped), b""):
        with contextlib.suppress(grpc.RpcError):
            if method == "PushUnrolls":
                call = peer.channel.stream_stream(path)(iter([data]), timeout=WAIT_S)
            else:
                call = peer.channel.unary_stream(path)(data, timeout=WAIT_S)
            for _ in call:
                pass

    assert_alive(server)


def test_method_that_does_not_exist_is_unimplemented_and_ends_nobody(peer: Peer) -> None:
    call = peer.channel.unary_unary("/impala_rl.v1.LearnerService/Fly")

    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=WAIT_S)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error_from(caught.value).reason == "LEARNER_UNAVAILABLE"


def test_error_in_a_method_tells_the_client_an_incident_and_nothing_else(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(link: LearnerLink) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(LearnerLink, "require_serving", fail)
    with pytest.raises(grpc.RpcError) as caught:
        peer.stub.GetConfig(learner_pb2.GetConfigRequest(), timeout=WAIT_S)
    monkeypatch.undo()

    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value)
    assert caught.value.details().removeprefix("internal error ") in caplog.text
    assert type(error_from(caught.value)) is LearnerUnavailableError


def test_second_server_on_the_port_refuses(server: RunningServer, tmp_path: Path) -> None:
    """Seen to fail (both started) with so_reuseport left on."""
    port = int(server.address.rpartition(":")[2])
    second = RunningServer(tmp_path / "second", make_config(transport={"port": port}))

    with pytest.raises(AddressInUseError, match=rf"cannot listen on 127.0.0.1:{port}.*--port"):
        second.__enter__()

    assert_alive(server)


def test_second_server_in_the_run_directory_refuses(server: RunningServer) -> None:
    with pytest.raises(RunInUseError, match="is in use by process"):
        RunningServer(server.run.path).__enter__()


def test_supervisor_writes_the_address_while_it_serves(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        assert server.run.address_path.read_text() == f"{server.address}\n"
        assert isinstance(server.supervisor, Supervisor)

    assert not server.run.address_path.exists()
