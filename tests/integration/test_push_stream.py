"""PushUnrolls keeps its contract in learner.proto: hello, one verdict each, resending, drain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from raw_peer import ACCEPTED, WAIT_S, B, Peer, assert_alive, peer_of, reason_of, refused
from running_server import RunningServer, make_config

from impala_common.codec.weights import unpack_snapshot
from impala_common.rpc.limits import MAX_MESSAGE_BYTES
from impala_common.run import metrics
from impala_rl.v1 import learner_pb2, learner_pb2_grpc, unroll_pb2
from impala_server.front_end.data_plane import push_stream
from impala_server.learner import batch_queue

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "run") as running:
        yield running


@pytest.fixture
def peer(server: RunningServer) -> Iterator[Peer]:
    with peer_of(server) as one:
        yield one


@pytest.mark.parametrize("first", ["unrolls", "goodbye", "nothing", "empty"])
def test_push_without_hello_first_is_refused(server: RunningServer, peer: Peer, first: str) -> None:
    peer.register()
    stream = peer.push()
    if first == "unrolls":
        stream.send(unrolls=peer.message())
    elif first == "goodbye":
        stream.send(goodbye=learner_pb2.PushGoodbye())
    elif first == "empty":
        stream.send()
    else:
        stream.half_close()

    error = stream.end()

    assert reason_of(error)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "expected hello as the first message" in error.details()
    assert_alive(server)


def test_push_without_hello_in_time_is_ended(
    server: RunningServer, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_stream, "HELLO_DEADLINE_S", 0.2)
    peer.register()

    error = peer.push().end()

    assert reason_of(error)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "hello within" in error.details()
    assert_alive(server)


@pytest.mark.parametrize("second", ["hello", "empty"])
def test_push_of_anything_but_unrolls_after_hello_is_refused(peer: Peer, second: str) -> None:
    peer.register()
    stream = peer.push().hello()
    if second == "hello":
        stream.hello()
    else:
        stream.send()

    assert reason_of(stream.end())[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_push_of_unrolls_of_another_session_is_refused(server: RunningServer, peer: Peer) -> None:
    peer.register()
    with peer_of(server, "other", 12) as other:
        other.register()
        stream = peer.push().hello()

        stream.send(unrolls=other.message())

        error = stream.end()
    assert reason_of(error)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "of another session" in error.details()


def test_push_before_register_is_refused(server: RunningServer, peer: Peer) -> None:
    """Also while the learner has no run yet: who has none to go on with has to register."""
    register_first = (grpc.StatusCode.ABORTED, "STALE_SESSION")
    assert reason_of(peer.push().hello().end())[:2] == register_first

    with peer_of(server, "first") as first:
        first.register()
        peer.learner_run_id = first.learner_run_id
    assert reason_of(peer.push().hello().end())[:2] == register_first


def test_push_of_many_messages_gets_one_verdict_each_in_order(peer: Peer) -> None:
    peer.register()
    stream = peer.push().hello()
    for _ in range(20):  # far beyond the window: they wait in the connection
        stream.send(unrolls=peer.message(3))

    verdicts = [stream.verdict() for _ in range(20)]

    assert [verdict.sequence_number for verdict in verdicts] == list(range(1, 21))
    assert {verdict.outcome for verdict in verdicts} == {ACCEPTED}
    versions = [verdict.learner.policy_version for verdict in verdicts]
    assert versions == sorted(versions)


def test_push_again_after_a_broken_stream_is_answered_duplicate(
    server: RunningServer, peer: Peer
) -> None:
    peer.register()
    first = peer.push().hello()
    one, two = peer.message(), peer.message()
    assert first.offer(one).outcome == ACCEPTED
    first.call.cancel()

    second = peer.push().hello()

    assert second.offer(one).outcome == learner_pb2.VERDICT_OUTCOME_DUPLICATE
    assert second.offer(two).outcome == ACCEPTED
    server.wait_until(lambda status: status.get(metrics.UPDATES) == 2)
    status = server.wait_until(lambda status: status[metrics.UNROLLS_DUPLICATE] == B)
    assert status[metrics.UNROLLS_ACCEPTED] == 2 * B


def test_push_of_invalid_unrolls_is_counted_and_the_learner_is_untouched(
    server: RunningServer, peer: Peer
) -> None:
    """Bad numbers of each family, and a good message between them on the same stream."""
    peer.register()
    before = peer.get_weights()[1]
    stream = peer.push().hello()
    damaged = peer.message()
    damaged.digest ^= 1
    wrong_shape = peer.message()
    wrong_shape.unroll_count = B - 1
    future = peer.message()
    future.policy_version = 1000
    offences = {
        "rewards: expected finite": peer.message(rewards=np.nan),
        "observation: expected finite": peer.message(observation=np.inf),
        "actions: expected values": peer.message(actions=2),
        "digest: ": damaged,
        "expected shape": wrong_shape,
        "policy_version: expected 0 to 0": future,
        "leaves: expected": unroll_pb2.UnrollBatch(
            actor=peer.actor, sequence_number=50, unroll_count=B
        ),
        "sequence_number: ": unroll_pb2.UnrollBatch(actor=peer.actor, unroll_count=B),
    }

    for text, message in offences.items():
        verdict = stream.offer(message)
        assert verdict.outcome == learner_pb2.VERDICT_OUTCOME_INVALID
        assert text in verdict.text

    count = len(offences) * B - 1
    status = server.wait_until(lambda status: status.get(metrics.UNROLLS_INVALID) == count)
    assert status[metrics.UPDATES] == 0
    assert peer.get_weights()[1] == before
    assert stream.offer(peer.message()).outcome == ACCEPTED
    server.wait_until(lambda status: status[metrics.UPDATES] == 1)
    assert all(np.isfinite(array).all() for array in read_weights(peer).values())


def read_weights(peer: Peer) -> dict[str, Any]:
    return unpack_snapshot(b"".join(peer.get_weights()[1]))


def test_push_while_storage_is_full_is_answered_capacity_and_later_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner is held up at its queue; what is refused is accepted under a new number."""
    may_take = threading.Event()
    take = batch_queue.BatchQueue.take

    def take_when_allowed(queue: batch_queue.BatchQueue) -> Any:
        while not may_take.wait(0.02):
            if queue._is_closed.is_set():
                break
        return take(queue)

    monkeypatch.setattr(batch_queue.BatchQueue, "take", take_when_allowed)
    config = make_config(transport={"capacity_timeout_s": 0.2})
    with RunningServer(tmp_path, config) as server, peer_of(server) as peer:
        peer.register()
        stream = peer.push().hello()
        for _ in range(2):
            assert stream.offer(peer.message()).outcome == ACCEPTED

        refused_message = peer.message()
        verdict = stream.offer(refused_message)
        assert verdict.outcome == learner_pb2.VERDICT_OUTCOME_CAPACITY
        assert "no room" in verdict.text
        may_take.set()
        server.wait_until(lambda status: status.get(metrics.UPDATES, 0) == 2)
        refused_message.sequence_number = 4

        assert stream.offer(refused_message).outcome == ACCEPTED
        server.wait_until(lambda status: status[metrics.UPDATES] == 3)


def test_push_of_oversized_message_is_refused_and_others_go_on(
    server: RunningServer, peer: Peer
) -> None:
    peer.register()
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options=options) as channel:
        peer.stub = learner_pb2_grpc.LearnerServiceStub(channel)
        stream = peer.push().hello()
        message = peer.message()
        message.leaves[0].data = bytes(MAX_MESSAGE_BYTES + 1)

        stream.send(unrolls=message)

        assert stream.end().code() in (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.INTERNAL,
        )
    assert_alive(server)


def test_push_when_the_client_goes_without_goodbye_frees_its_place(
    server: RunningServer, peer: Peer
) -> None:
    peer.register()
    stream = peer.push().hello()
    assert stream.offer(peer.message(1)).outcome == ACCEPTED
    server.wait_until(lambda status: status.get(metrics.ACTORS_CONNECTED) == 1)

    stream.call.cancel()

    server.wait_until(lambda status: status[metrics.ACTORS_CONNECTED] == 0)
    assert_alive(server)


def test_push_when_the_run_reaches_its_last_step_is_drained(tmp_path: Path) -> None:
    config = make_config(job={"total_steps": 100})
    with RunningServer(tmp_path, config) as server, peer_of(server) as peer:
        peer.register()
        stream = peer.push().hello()

        answers = []
        while not answers or answers[-1].WhichOneof("payload") == "verdict":
            stream.send(unrolls=peer.message())
            answers.append(stream.next())

        assert answers[-1].drain.reason == learner_pb2.DRAIN_REASON_FINISHED
        assert answers[-1].drain.learner.trained_steps >= 100
        server.wait_finished()


def test_push_when_the_learner_is_asked_to_stop_is_drained(
    server: RunningServer, peer: Peer
) -> None:
    peer.register()
    stream = peer.push().hello()
    assert stream.offer(peer.message()).outcome == ACCEPTED

    server.supervisor.request_stop()

    response = stream.next()
    assert response.drain.reason == learner_pb2.DRAIN_REASON_STOPPING
    with pytest.raises(StopIteration):
        stream.next()
    with refused(grpc.StatusCode.UNAVAILABLE, "LEARNER_UNAVAILABLE", "stopping"):
        peer.register()
    with refused(grpc.StatusCode.UNAVAILABLE, "LEARNER_UNAVAILABLE", "stopping"):
        peer.stub.GetConfig(learner_pb2.GetConfigRequest(), timeout=WAIT_S)
