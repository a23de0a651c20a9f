"""Repeated and concurrent admin commands (docs/faults.md, 57, 58)."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from admin_peer import Admin, admin_of, audit
from faults.row_figures import amount, record
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from raw_peer import peer_of
from running_server import RunningServer

from impala_actor.admin.admin_client import find_address
from impala_common.errors import (
    AlreadyExistsError,
    IllegalTransitionError,
    ImpalaError,
    InvalidRequestError,
    RunMismatchError,
)
from impala_rl.v1 import admin_pb2

pytestmark = pytest.mark.timeout(300)

SERVICE = "/impala_rl.v1.AdminService/"


@pytest.fixture
def learner(tmp_path: Path) -> Any:
    """A learner with a run, which no actor trains."""
    with RunningServer(tmp_path / "run") as running, peer_of(running) as peer:
        peer.register()
        yield running


def test_captured_commands_sent_again_have_one_effect(learner: RunningServer) -> None:
    """The same bytes 8 x n times at once, then to another life."""
    number = amount(5, 100)
    header = admin_pb2.MutationHeader(request_id="captured")
    captured = admin_pb2.SaveCheckpointRequest(header=header, name="good").SerializeToString()

    def send(unused: int) -> bytes:
        with grpc.insecure_channel(_target(learner)) as channel:
            call = channel.unary_unary(f"{SERVICE}SaveCheckpoint")
            answers = {call(captured, timeout=30.0) for _ in range(number)}
        (answer,) = answers
        return answer

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(send, range(8)))

    assert len(answers) == 1
    effects = [line for line in audit(learner) if line["what"] == "SaveCheckpoint"]
    assert [line["outcome"] for line in effects] == ["ok"]
    with admin_of(learner) as admin:
        run_id = admin.status()["learner"]["learner_run_id"]
    with (
        admin_of(learner, expected_run_id=int(run_id, 16) ^ 1) as admin,
        pytest.raises(RunMismatchError, match="nothing was done"),
    ):
        admin.ask("Pause")
    with (
        admin_of(learner, request_id="captured") as admin,
        pytest.raises(InvalidRequestError, match="used for another request"),
    ):
        admin.ask("SaveCheckpoint", name="other")
    record(57, replays=8 * number, effects=len(effects), other_life="ABORTED")


class AdminMachine(RuleBasedStateMachine):
    """Commands in any order against a model of five states, names and one parameter."""

    server: RunningServer
    admin: Admin
    number = 0
    examples = 0
    steps = 0

    @initialize()
    def begin(self) -> None:
        """One learner for all examples: back to what the model begins with."""
        with contextlib.suppress(IllegalTransitionError):
            self.admin.ask("Resume")
        AdminMachine.examples += 1
        self.names: set[str] = set()
        self.is_paused = False
        self.cost = self._parameter()

    def _parameter(self) -> str:
        parameters = self.admin.ask("ListParameters")["parameters"]
        (found,) = [one for one in parameters if one["name"] == "entropy_cost"]
        return str(found["value"])

    @rule()
    def pause(self) -> None:
        self._expect(self.is_paused, IllegalTransitionError, "Pause")
        self.is_paused = True

    @rule()
    def resume(self) -> None:
        self._expect(not self.is_paused, IllegalTransitionError, "Resume")
        self.is_paused = False

    @rule(index=st.integers(0, 3))
    def checkpoint(self, index: int) -> None:
        name = f"example-{AdminMachine.examples}-{index}"
        self._expect(name in self.names, AlreadyExistsError, "SaveCheckpoint", name=name)
        self.names.add(name)

    @rule(cost=st.sampled_from(["0.01", "0.5", "-1", "nan", "x", ""]))
    def set_parameter(self, cost: str) -> None:
        is_bad = cost in ("-1", "nan", "x", "")
        answer = self._expect(
            is_bad, InvalidRequestError, "SetParameter", name="entropy_cost", value=cost
        )
        if answer is not None:
            assert answer["value_before"] == self.cost
            self.cost = answer["parameter"]["value"]

    @rule(index=st.integers(0, 3))
    def roll_back(self, index: int) -> None:
        name = f"example-{AdminMachine.examples}-{index}"
        if name not in self.names:
            with pytest.raises(ImpalaError, match="no checkpoint"):
                self.admin.ask("Rollback", name=name)
            return
        before = self._version()
        self.admin.ask("Rollback", name=name)
        assert self._version() > before
        self.cost = self._parameter()  # parameters are part of a checkpoint

    @rule()
    def repeat(self) -> None:
        """One request id twice: the same answer, also after the state has changed."""
        answers: list[Any] = []
        with admin_of(self.server, request_id=f"again-{AdminMachine.steps}") as admin:
            for _ in range(2):
                try:
                    answers.append(admin.ask("Pause"))
                except IllegalTransitionError as error:
                    answers.append(str(error))
        assert answers[0] == answers[1]
        self.is_paused = True

    @invariant()
    def state_is_the_models(self) -> None:
        if not hasattr(self, "is_paused"):
            return
        AdminMachine.steps += 1
        assert self.admin.status()["state"] == ("PAUSED" if self.is_paused else "RUNNING")
        assert self._parameter() == self.cost

    def _version(self) -> int:
        return int(self.admin.status()["learner"].get("policy_version", 0))

    def _expect(
        self, is_refused: bool, error: type[ImpalaError], method: str, **fields: Any
    ) -> Any:
        if not is_refused:
            return self.admin.ask(method, **fields)
        with pytest.raises(error):
            self.admin.ask(method, **fields)
        return None


def test_commands_in_any_order_do_what_the_model_does(learner: RunningServer) -> None:
    with admin_of(learner) as admin:
        AdminMachine.server, AdminMachine.admin = learner, admin
        AdminMachine.examples = AdminMachine.steps = 0
        run_state_machine_as_test(
            AdminMachine,
            settings=settings(
                max_examples=amount(6, 50), stateful_step_count=15, deadline=None, derandomize=True
            ),
        )
    record(58, machine_steps=AdminMachine.steps, violations=0)


def test_eight_clients_with_every_command_leave_one_history(learner: RunningServer) -> None:
    """Replays the audit log on the model: each "ok" was allowed in the state it met."""
    started = threading.Barrier(8)
    methods = ("Pause", "Resume", "SetParameter", "SaveCheckpoint")
    fields = {"SetParameter": {"name": "entropy_cost", "value": "0.02"}}

    def work(index: int) -> None:
        with admin_of(learner) as client:
            started.wait(20.0)
            for round_ in range(amount(6, 50)):
                method = methods[(index + round_) % len(methods)]
                with contextlib.suppress(IllegalTransitionError):
                    client.ask(method, **fields.get(method, {}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    violations, is_paused = 0, False
    lines = audit(learner)
    for line in lines:
        if line["what"] in ("Pause", "Resume") and line["outcome"] == "ok":
            violations += (line["what"] == "Pause") is is_paused
            is_paused = line["what"] == "Pause"
    with admin_of(learner) as admin:
        assert (admin.status()["state"] == "PAUSED") is is_paused
        admin.ask("Drain")
        for method in ("Pause", "Resume", "Rollback", "SetParameter"):
            with pytest.raises(ImpalaError):
                admin.ask(method, **fields.get(method, {}))
    record(58, clients=8, commands=len(lines), violations=violations)
    assert violations == 0


def _target(server: RunningServer) -> str:
    return find_address(server.run.path, "")
