"""A learner that takes nothing: whatever it is sent, the front end goes on answering.

Real processes. The learner is paused by an administrator, or stopped with SIGSTOP, and is then
sent more than a pipe holds: hand-offs of many slots, hand-offs with many episodes, calls that
nobody waits for any more. Each test was seen to fail with sends that block.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from admin_peer import Admin
from commands import Command
from evaluation_peer import EvaluationPeer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raw_peer import ACCEPTED

from impala_actor.admin.admin_client import find_address
from impala_common.run.run_directory import RunDirectory
from impala_rl.v1 import admin_pb2, admin_pb2_grpc

pytestmark = pytest.mark.timeout(240)

BATCH_SIZE = 4
START_S = 60.0
ANSWER_S = 20.0
TRAIN_S = 120.0
END_S = 40.0


class Running:
    """A learner server of real processes with one peer that has registered."""

    def __init__(self, command: Command, run: RunDirectory, peer: EvaluationPeer) -> None:
        self.command = command
        self.peer = peer
        self.admin = Admin(find_address(run.path, ""), timeout_s=ANSWER_S)
        self.health = health_pb2_grpc.HealthStub(peer.channel)

    def learner(self) -> Any:
        (process,) = self.command.children("impala_server.learner")
        return process

    def require_answers(self) -> None:
        """Data plane and administration answer what needs no learner."""
        self.health.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
        self.admin.status()

    def offer(self, num_messages: int, num_episodes: int = 0) -> None:
        """Has the server accept messages of one batch each, with that many episodes beside."""
        for number in range(num_messages):
            if number % 50 == 0:  # a stream has a deadline
                stream = self.peer.push().hello()
            message = self.peer.message(BATCH_SIZE)
            for k in range(num_episodes):
                message.episodes.add(episode_return=float(k), step_count=1)
            assert stream.offer(message).outcome == ACCEPTED

    def wait_for_updates(self, number: int) -> None:
        self.command.wait_until(
            lambda: self.admin.status()["learner"]["policy_version"] >= number,
            "updates of all that was accepted",
            TRAIN_S,
        )

    def end(self) -> None:
        """A signal ends the server in order, with code 0."""
        self.command.interrupt(signal.SIGTERM)
        assert self.command.wait(END_S) == 0, self.command.err


@contextlib.contextmanager
def serving(path: Path, num_storages: int) -> Iterator[Running]:
    run = RunDirectory(path / "run")
    options = ["--port", "0", "--run-dir", "run", "--hidden-sizes", "16", "--quiet"]
    options += ["--unroll-length", "2", "--batch-size", str(BATCH_SIZE), "--no-tensorboard"]
    options += ["--num-storages", str(num_storages), "--total-steps", "1000000000"]
    with Command(path, "impala-server", *options) as command:
        command.wait_until(run.address_path.exists, "address", START_S)
        peer = EvaluationPeer(run.address_path.read_text().strip())
        with contextlib.closing(peer):
            running = Running(command, run, peer)
            with contextlib.closing(running.admin):
                peer.register()
                yield running


@pytest.mark.parametrize(
    ("num_storages", "num_messages", "num_episodes"),
    [
        pytest.param(1700, 420, 0, marks=pytest.mark.extended, id="many slots"),
        pytest.param(400, 98, 512, id="many episodes"),
    ],
)
def test_paused_learner_with_full_storage_leaves_the_front_end_answering(
    tmp_path: Path, num_storages: int, num_messages: int, num_episodes: int
) -> None:
    with serving(tmp_path, num_storages) as running:
        running.admin.ask("Pause")
        running.offer(num_messages, num_episodes)

        running.require_answers()
        assert running.admin.ask("Resume")["state"] == "RUNNING"

        running.wait_for_updates(num_messages)
        running.end()


def test_paused_learner_with_full_storage_ends_by_a_signal(tmp_path: Path) -> None:
    with serving(tmp_path, 1700) as running:
        running.admin.ask("Pause")
        running.offer(420)

        running.end()


def test_stopped_learner_with_many_calls_leaves_the_front_end_answering(tmp_path: Path) -> None:
    """Calls that timed out count no more: one made after the learner went on is answered."""
    with serving(tmp_path, 8) as running:
        stub = admin_pb2_grpc.AdminServiceStub(running.admin._channel)

        def ask(timeout_s: float) -> Any:
            return stub.ListParameters.future(admin_pb2.ListParametersRequest(), timeout=timeout_s)

        assert ask(ANSWER_S).code() is grpc.StatusCode.OK  # the learner answers it
        learner = running.learner()
        learner.send_signal(signal.SIGSTOP)
        try:
            num_timed_out = 0
            while num_timed_out < 400:
                codes = [call.code() for call in [ask(0.5) for _ in range(32)]]
                assert grpc.StatusCode.RESOURCE_EXHAUSTED not in codes
                # Others gRPC refuses by itself, where many calls are cancelled at a time.
                num_timed_out += codes.count(grpc.StatusCode.DEADLINE_EXCEEDED)
            running.require_answers()
        finally:
            learner.send_signal(signal.SIGCONT)

        assert ask(ANSWER_S).code() is grpc.StatusCode.OK
        assert running.admin.ask("Pause")["state"] == "PAUSED"
        running.end()


@pytest.mark.extended
def test_stopped_learner_with_full_storage_goes_on_where_it_was(tmp_path: Path) -> None:
    with serving(tmp_path, 1700) as running:
        learner = running.learner()
        learner.send_signal(signal.SIGSTOP)
        try:
            running.offer(420)
            running.require_answers()
        finally:
            learner.send_signal(signal.SIGCONT)

        running.wait_for_updates(420)
        running.end()
