"""Single faults against a whole server in this process, each judged by the history checker."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import Command
from faults.proxy import FaultProxy
from raw_peer import ENVIRONMENT
from running_server import RunningServer, make_config

from impala_actor.acting.learner_client import LearnerClient
from impala_common.errors import DamagedRequestError
from impala_common.process import failpoints
from impala_common.process.exit_codes import OK, TEMPORARY
from impala_common.rpc.addresses import port_of
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory
from impala_common.testing.history_checker import Report, check
from impala_common.testing.patterns import SIGNED_ID
from impala_rl.v1 import learner_pb2

CONFIG = make_config(environment={"envs_per_actor": 4}, transport={"port": 0})


def train_through(
    folder: Path, num_updates: int, disturb: Callable[[FaultProxy, int], None] = lambda *_: None
) -> None:
    """Trains with two actors behind a proxy; `disturb` is called at every tenth update."""
    with RunningServer(folder / "run", CONFIG) as server:
        with FaultProxy(port_of(server.address)) as proxy:
            address, server.address = server.address, f"127.0.0.1:{proxy.port}"
            actors = [server.run_actor(SIGNED_ID, connect_timeout_s=20.0) for _ in range(2)]
            for number in range(10, num_updates + 1, 10):
                server.wait_until(lambda status, n=number: status.get(metrics.UPDATES, 0) >= n)
                disturb(proxy, number)
            for actor in actors:
                actor.stop()
            server.address = address
        server.stop()


def judged(history: Path) -> Report:
    report = check(history)
    report.raise_if_violated()
    assert report.figures["unrolls_trained"] >= 8 * 40
    return report


def test_run_that_nobody_disturbs_has_a_good_history(tmp_path: Path, history: Path) -> None:
    train_through(tmp_path, 40)

    figures = judged(history).figures
    assert figures["messages_invalid"] == figures["duplicates_received"] == 0
    assert figures["actor_lives"] == 2


def test_acknowledgements_that_are_lost_lead_to_duplicates_and_none_is_trained(
    tmp_path: Path, history: Path
) -> None:
    """Seen to fail with a front end that does not look at sequence numbers."""
    with failpoints.armed("push.before_ack=20%:drop; seed=4"):
        train_through(tmp_path, 40)

    assert judged(history).figures["duplicates_received"] > 0


def test_flipped_bit_on_the_way_is_never_trained(tmp_path: Path, history: Path) -> None:
    """Seen to fail with a decoder that does not compare digests."""
    train_through(tmp_path, 60, lambda proxy, number: proxy.flip_after(500 + 97 * number))

    judged(history)


def test_connections_cut_and_reset_lose_and_repeat_nothing(tmp_path: Path, history: Path) -> None:
    def disturb(proxy: FaultProxy, number: int) -> None:
        proxy.cut_after(300 + 53 * number) if number % 20 else proxy.reset()

    train_through(tmp_path, 60, disturb)

    judged(history)


def test_actor_goes_on_with_a_learner_that_comes_back_elsewhere(
    tmp_path: Path, history: Path
) -> None:
    """Seen to fail, at the restore, with a learner that goes on from zero steps."""
    options = ["--env", SIGNED_ID, "--env-backend", "sync", "--num-envs", "4"]
    with FaultProxy(1) as proxy:
        options += ["--server", f"127.0.0.1:{proxy.port}"]
        with Command(tmp_path, "impala-actor", *options) as actor:
            wanted = 0
            for _ in range(2):
                wanted += 20
                with RunningServer(tmp_path / "run", CONFIG) as server:
                    proxy.target_port = port_of(server.address)
                    server.wait_until(
                        lambda status: status.get(metrics.UPDATES, 0) >= wanted  # noqa: B023
                    )
                    wanted = server.stop()[metrics.UPDATES]
            actor.interrupt(signal.SIGTERM)
            assert actor.wait() == OK, actor.err

    report = check(history)
    report.raise_if_violated()
    assert (report.figures["learner_lives"], report.figures["actor_lives"]) == (2, 1)
    assert report.figures["steps_lost_at_most"] == 0, "it was stopped in order"


def test_learner_whose_supervisor_was_killed_keeps_its_run_until_it_has_ended(
    tmp_path: Path,
) -> None:
    """Else the next one reads the run before it has saved. Seen with a lock of the supervisor's
    alone: two lives went on from one checkpoint.
    """
    options = ["--env", "CartPole-v1", "--run-dir", "run", "--quiet", "--resume-if-exists"]
    run = RunDirectory(tmp_path / "run")
    with Command(tmp_path, "impala-server", *options, "--port", "0") as first:
        first.wait_until(run.address_path.exists, "address")
        (learner,) = first.children("impala_server.learner")
        learner.suspend()
        first.process.kill()
        first.wait()
        with Command(tmp_path, "impala-server", *options, "--port", "0") as second:
            assert second.wait() == TEMPORARY
        learner.resume()
        psutil.wait_procs([learner], timeout=20.0)

    with run.lock():
        pass  # free again
    assert "in use" in second.err


@pytest.mark.parametrize(("num_damaged", "is_taken"), [(2, True), (50, False)])
def test_registration_damaged_on_its_way_is_made_again_a_few_times(
    tmp_path: Path, num_damaged: int, is_taken: bool
) -> None:
    """Seen in a soak: a flipped bit in a registration ended the actor."""
    with RunningServer(tmp_path / "run", CONFIG) as server:
        client = LearnerClient(server.address, "a", connect_timeout_s=30.0)
        numbers = itertools.count()

        def serialise(request: learner_pb2.RegisterRequest) -> bytes:
            is_damaged = next(numbers) < num_damaged
            return b"\xff\xff" if is_damaged else request.SerializeToString()

        with contextlib.closing(client):
            client._stub.Register = client._channel.unary_unary(
                "/impala_rl.v1.LearnerService/Register",
                request_serializer=serialise,
                response_deserializer=learner_pb2.RegisterResponse.FromString,
            )
            if is_taken:
                assert client.register(ENVIRONMENT, 4).actor.actor_id == "a"
                assert next(numbers) == num_damaged + 1
            else:
                with pytest.raises(DamagedRequestError, match="no message"):
                    client.register(ENVIRONMENT, 4)
                assert next(numbers) <= 10
