"""SIGTERM under load: unrolls refused with a reason, step finished, checkpoint, exit 0 in time.

Real processes and real signals. The promise is 25 s for a server and 5 s for an actor.
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import grpc
import pytest
from commands import Command, free_port, newest_metric, wait_for_end
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raw_peer import peer_of
from running_server import TINY, RunningServer, make_config

from impala_common.errors import LearnerUnavailableError
from impala_common.process.exit_codes import INTERNAL, INTERRUPTED, OK
from impala_common.rpc.errors import error_from
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_rl.v1 import learner_pb2
from impala_server.children import make_child_specs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

SERVER_S, ACTOR_S = 25.0, 5.0
TRAIN = ["--env", "CartPole-v1", "--port", "0", "--total-steps", "100000000", "--run-dir", "run"]
TRAIN += ["--eval-interval-steps", "0"]


@pytest.mark.extended
def test_train_with_four_actors_drains_in_time(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    options = [*TRAIN, "--num-actors", "4", "--log-interval-s", "0.2", "--json"]
    with Command(tmp_path, "impala-train", *options) as train:
        train.wait_until(lambda: newest_metric(run.path, metrics.ACTORS_CONNECTED) == 4, "4 actors")
        children = train.children()
        start_s = time.monotonic()
        train.interrupt(signal.SIGTERM)

        assert train.wait(SERVER_S) == OK, train.err
        assert time.monotonic() - start_s < SERVER_S
        wait_for_end(children, 5.0)
        stopped = train.result()

    assert "Traceback" not in train.err
    checkpoint = CheckpointStore(run.checkpoints_path).load_newest()
    assert stopped["reason"] == "stopping"
    assert checkpoint.step == stopped["steps"] == newest_metric(run.path, metrics.STEPS) > 0


def test_draining_server_tells_actors_and_health_why(tmp_path: Path) -> None:
    """Seen to fail with a drain that leaves health as it was."""
    with RunningServer(tmp_path / "run") as server, peer_of(server) as peer:
        peer.register()
        stream = peer.push().hello()
        stream.offer(peer.message(8))
        watch = health_pb2_grpc.HealthStub(peer.channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=30.0
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.supervisor.request_stop()

        drain = stream.next().drain
        assert drain.reason == learner_pb2.DRAIN_REASON_STOPPING
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            peer.register()
        watch.cancel()
        server.wait_until(lambda status: status["state"] == "STOPPED")

    error = error_from(caught.value)
    assert isinstance(error, LearnerUnavailableError)
    assert "stopping" in str(error) or "refused" in str(error) or "closed" in str(error)


@pytest.mark.parametrize("name", [pytest.param("learner", marks=pytest.mark.extended), "front_end"])
def test_process_that_hangs_while_stopping_is_killed_at_the_bound_and_named(
    tmp_path: Path, name: str
) -> None:
    """Seen to fail with the 60 s the supervisor once had."""
    run = RunDirectory(tmp_path / "run")
    options = [*TRAIN, "--num-actors", "1", "--log-interval-s", "0.2"]
    with Command(tmp_path, "impala-train", *options) as train:
        train.wait_until(lambda: newest_metric(run.path, metrics.UPDATES) > 5, "updates")
        (hanging,) = train.children(f"impala_server.{name}")
        children = train.children()
        hanging.send_signal(signal.SIGSTOP)
        start_s = time.monotonic()
        train.interrupt(signal.SIGTERM)

        assert train.wait(40.0) == INTERNAL, train.err
        assert time.monotonic() - start_s < SERVER_S
        wait_for_end(children, 10.0)

    title = name.replace("_", "-")
    assert f"error: the {title} process hung while stopping and was killed" in train.err
    assert CheckpointStore(run.checkpoints_path).load_newest().tensors


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    options = [*TRAIN, "--num-actors", "1", "--log-interval-s", "0.2"]
    with Command(tmp_path, "impala-train", *options) as train:
        train.wait_until(lambda: newest_metric(run.path, metrics.UPDATES) > 5, "updates")
        (learner,) = train.children("impala_server.learner")
        children = train.children()
        learner.send_signal(signal.SIGSTOP)  # so that the first signal alone takes long
        train.interrupt(signal.SIGTERM)
        train.wait_until(lambda: "stopping:" in train.err, "that it stops")
        start_s = time.monotonic()
        train.interrupt(signal.SIGTERM)

        assert train.wait(5.0) == INTERRUPTED
        assert time.monotonic() - start_s < 2.0
        learner.send_signal(signal.SIGCONT)
        wait_for_end(children, 25.0)

    assert CheckpointStore(run.checkpoints_path).load_newest().step > 0


def test_actor_leaves_in_time_whatever_the_learner_does(tmp_path: Path) -> None:
    config = make_config(rollout={"unroll_length": 8})
    beat = tmp_path / "beat"
    with RunningServer(tmp_path / "run", config) as server:
        arguments = ["--server", server.address, "--env", TINY + "Counting-v0"]
        with Command(tmp_path, "impala-actor", *arguments, "--heartbeat-file", str(beat)) as actor:
            server.wait_until(lambda status: status.get(metrics.UPDATES, 0) > 5)
            start_s = time.monotonic()
            actor.interrupt(signal.SIGTERM)

            assert actor.wait(10.0) == OK, actor.err
            assert time.monotonic() - start_s < ACTOR_S
            assert "Traceback" not in actor.err
        assert beat.exists()


def test_actor_that_waits_for_a_learner_leaves_at_once(tmp_path: Path) -> None:
    arguments = ["--server", f"127.0.0.1:{free_port()}", "--env", "CartPole-v1"]
    with Command(tmp_path, "impala-actor", *arguments) as actor:
        actor.wait_until(lambda: "waiting for the learner" in actor.err, "that it waits")
        start_s = time.monotonic()
        actor.interrupt(signal.SIGTERM)

        assert actor.wait(10.0) == OK, actor.err
        assert time.monotonic() - start_s < ACTOR_S


def test_actor_of_a_learner_that_hangs_leaves_in_time(tmp_path: Path) -> None:
    """One in the middle of its work, and one that has just come."""
    run = RunDirectory(tmp_path / "run")
    options = ["--env", "CartPole-v1", "--port", "0", "--run-dir", "run"]
    with Command(tmp_path, "impala-server", *options) as server:
        server.wait_until(run.address_path.exists, "address")
        address = run.address_path.read_text().strip()
        with Command(
            tmp_path, "impala-actor", "--server", address, "--env", "CartPole-v1"
        ) as actor:
            server.wait_until(lambda: newest_metric(run.path, metrics.UPDATES) > 5, "updates")
            (front_end,) = server.children("impala_server.front_end")
            front_end.send_signal(signal.SIGSTOP)
            threading.Event().wait(1.0)  # the actor runs into the wall meanwhile
            start_s = time.monotonic()
            actor.interrupt(signal.SIGTERM)

            assert actor.wait(10.0) == OK, actor.err
            assert time.monotonic() - start_s < ACTOR_S
        with Command(
            tmp_path, "impala-actor", "--server", address, "--env", "CartPole-v1", "--verbose"
        ) as late:
            late.wait_until(lambda: " plays " in late.err, "that it asks the learner")
            threading.Event().wait(1.0)
            start_s = time.monotonic()
            late.interrupt(signal.SIGTERM)

            assert late.wait(30.0) == OK, late.err
            assert time.monotonic() - start_s < ACTOR_S
        front_end.send_signal(signal.SIGCONT)
        server.interrupt(signal.SIGTERM)
        assert server.wait(SERVER_S) == OK, server.err


def test_bounds_fit_into_what_is_promised() -> None:
    kill_s = 1.0
    specs = make_child_specs(make_config(), RunDirectory("unused"), None)
    stop_s = sum(spec.stop_patience_s for spec in specs.values())
    assert stop_s + kill_s < SERVER_S
