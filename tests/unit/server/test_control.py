"""The learner's state machine, and the gate in front of its updates."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from impala_common.errors import IllegalTransitionError
from impala_server.learner.control import (
    ACTIONS,
    State,
    StateMachine,
    UpdateGate,
)

COMMANDS = sorted(name for name, action in ACTIONS.items() if action.is_command)
MOVES = sorted(name for name, action in ACTIONS.items() if action.after is not None)
ORDER = {"STARTING": 0, "RUNNING": 1, "PAUSED": 1, "DRAINING": 2, "STOPPED": 3}


class AnyOrder(RuleBasedStateMachine):
    """Whatever is asked for in whatever order: only the table's steps are made.

    Seen to fail with a `move` that does not look whether the step is allowed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.machine = StateMachine()
        self.seen = [self.machine.state]

    @rule(what=st.sampled_from(MOVES))
    def move(self, what: str) -> None:
        before = self.machine.state
        if before in ACTIONS[what].states:
            assert self.machine.move(what) is ACTIONS[what].after
            self.seen.append(self.machine.state)
            return
        with pytest.raises(IllegalTransitionError) as caught:
            self.machine.move(what)
        assert before in str(caught.value)
        assert all(state in str(caught.value) for state in ACTIONS[what].states)
        assert self.machine.state is before

    @rule(what=st.sampled_from(COMMANDS))
    def require(self, what: str) -> None:
        before = self.machine.state
        if before in ACTIONS[what].states:
            self.machine.require(what)
        else:
            with pytest.raises(IllegalTransitionError, match="allowed now: "):
                self.machine.require(what)
        assert self.machine.state is before

    @invariant()
    def never_goes_back(self) -> None:
        ranks = [ORDER[state] for state in self.seen]
        assert ranks == sorted(ranks)


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_every_admin_command_is_allowed_somewhere_and_nothing_after_the_end() -> None:
    assert all(ACTIONS[name].states for name in COMMANDS)
    assert not any(State.STOPPED in ACTIONS[name].states for name in COMMANDS)


def test_gate_that_is_shut_holds_updates_until_it_opens() -> None:
    """Seen to fail with `shut` that does not take the update lock."""
    lock = threading.Lock()
    gate = UpdateGate(lock)
    inside, go_on, done = threading.Event(), threading.Event(), []

    def update() -> None:
        for number in range(2):
            with lock:
                assert gate.pass_through()
                inside.set()
                assert go_on.wait(10.0)
                done.append(number)

    thread = threading.Thread(target=update)
    thread.start()
    assert inside.wait(10.0)
    shutting = threading.Thread(target=gate.shut)
    shutting.start()
    assert shutting.is_alive()  # an update is under way
    go_on.set()
    shutting.join(10.0)
    num_done = len(done)
    assert num_done in (1, 2)  # the second may have been first at the lock
    gate.open()
    thread.join(10.0)
    assert done == [0, 1]


def test_gate_that_is_closed_while_shut_sends_threads_home() -> None:
    lock = threading.Lock()
    gate = UpdateGate(lock)
    gate.shut()
    passed: list[bool] = []

    def update() -> None:
        with lock:
            passed.append(gate.pass_through())

    thread = threading.Thread(target=update)
    thread.start()
    gate.close()
    thread.join(10.0)
    assert passed == [False]


def test_gate_that_is_closed_while_open_lets_the_last_update_through() -> None:
    lock = threading.Lock()
    gate = UpdateGate(lock)
    gate.close()
    with lock:
        assert gate.pass_through()
