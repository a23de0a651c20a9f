"""A failing environment of an actor is made again, given up in time, and watched for hangs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_actor.environments.adapter import EnvironmentAdapter, StepResult
from impala_actor.environments.factory import make_environment
from impala_actor.environments.rebuilt import RebuiltEnvironment, UnrollAbandonedError, all_finite
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_common.errors import (
    EnvironmentFailedError,
    QueueClosedError,
    SpecMismatchError,
    UnknownEnvironmentError,
)
from impala_common.process.exit_codes import TEMPORARY, exit_code_of
from impala_common.testing.environments import CountingEnv

TINY = "impala_common.testing.environments:"
ACTIONS = np.zeros(2, np.int64)


class Script:
    """Makes real environments whose calls fail as a script says: x raises, s is sys.exit(2)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, resets: str = "", steps: str = "") -> None:
        self.num_made = 0
        self.seeds: list[int] = []
        self._resets, self._steps = iter(resets), iter(steps)
        reset, step = EnvironmentAdapter.reset, EnvironmentAdapter.step

        def scripted_reset(adapter: EnvironmentAdapter, seed: int) -> Any:
            self.seeds.append(seed)
            _raise_if_scripted(next(self._resets, "."), OSError("no licence"))
            return reset(adapter, seed)

        def scripted_step(adapter: EnvironmentAdapter, actions: Any) -> StepResult:
            _raise_if_scripted(next(self._steps, "."), ZeroDivisionError("physics"))
            return step(adapter, actions)

        monkeypatch.setattr(EnvironmentAdapter, "reset", scripted_reset)
        monkeypatch.setattr(EnvironmentAdapter, "step", scripted_step)

    def make(self) -> EnvironmentAdapter:
        self.num_made += 1
        return make_environment(TINY + "Counting-v0", 2)


def _raise_if_scripted(call: str, error: Exception) -> None:
    if call == "x":
        raise error
    if call == "s":
        sys.exit(2)


@contextlib.contextmanager
def rebuilt(script: Script, stop: threading.Event | None = None) -> Any:
    watchdog = EnvironmentWatchdog(0.0)
    environment = RebuiltEnvironment(script.make, stop or threading.Event(), watchdog, 3)
    with contextlib.closing(environment):
        yield environment


def test_step_that_raises_drops_the_slots_and_start_makes_them_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen to fail with a `start` that resets the broken slots: num_made stayed 1."""
    script = Script(monkeypatch, steps="..x")
    with rebuilt(script) as environment:
        environment.start(5)
        environment.step(ACTIONS)
        environment.step(ACTIONS)
        with pytest.raises(UnrollAbandonedError):
            environment.step(ACTIONS)
        observations = environment.start(5)

    assert script.num_made == 2
    assert environment.num_failures == 1
    assert script.seeds == [5, 6]  # not the same chance once more: it might fail the same way
    np.testing.assert_array_equal(observations["observation"][:, 0], [0.0, 0.0])


def test_environment_that_calls_sys_exit_has_failed_and_ends_no_actor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script(monkeypatch, resets=".s.", steps="s")
    with rebuilt(script) as environment:
        environment.start(5)
        with pytest.raises(UnrollAbandonedError):
            environment.step(ACTIONS)
        environment.start(5)

    assert environment.num_failures == 2


def test_reset_that_raises_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, resets="xxxxxxx")
    with rebuilt(script) as environment, pytest.raises(EnvironmentFailedError) as caught:
        environment.start(5)

    assert exit_code_of(caught.value) == TEMPORARY
    assert str(caught.value) == (
        "reset of the environment raised OSError: no licence (3 failures in a row)"
    )
    assert script.num_made == 3


def test_failures_with_good_steps_between_them_are_not_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen to fail with a count that only a completed unroll sets back."""
    script = Script(monkeypatch, steps=".x" * 10)
    with rebuilt(script) as environment:
        for _ in range(10):
            environment.start(5)
            environment.step(ACTIONS)
            with pytest.raises(UnrollAbandonedError):
                environment.step(ACTIONS)

    assert environment.num_failures == 10


def test_environment_that_completes_no_unroll_is_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that always fails in its second step must not go on for ever without a word."""
    script = Script(monkeypatch, steps=".x" * 300)
    with rebuilt(script) as environment:
        for _ in range(199):
            environment.start(5)
            environment.step(ACTIONS)
            with pytest.raises(UnrollAbandonedError):
                environment.step(ACTIONS)
        environment.start(5)
        environment.step(ACTIONS)
        with pytest.raises(EnvironmentFailedError, match="200 failures in a row"):
            environment.step(ACTIONS)


def test_errors_that_trying_again_does_not_help_pass_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script(monkeypatch, steps="x")
    with rebuilt(script) as environment:
        environment.start(5)
        with pytest.raises(UnrollAbandonedError):
            environment.step(ACTIONS)

        def fail() -> EnvironmentAdapter:
            raise UnknownEnvironmentError("gone")

        environment._make = fail
        with pytest.raises(UnknownEnvironmentError):
            environment.start(5)


def test_environment_that_comes_back_as_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, steps="x")
    with rebuilt(script) as environment:
        environment.start(5)
        with pytest.raises(UnrollAbandonedError):
            environment.step(ACTIONS)
        environment._make = lambda: make_environment(TINY + "Bait-v0", 2)
        with pytest.raises(SpecMismatchError):
            environment.start(5)


def test_pause_between_tries_ends_when_the_actor_is_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = threading.Event()
    stop.set()
    with (
        rebuilt(Script(monkeypatch, resets="xx"), stop) as environment,
        pytest.raises(QueueClosedError),
    ):
        environment.start(5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_all_finite_looks_at_every_number_with_a_fraction(value: float) -> None:
    good = {"a": np.zeros((3, 2), np.float32), "b": np.full((3, 2), 7, np.uint8)}

    assert all_finite(good)
    good["a"][2, 1] = value
    assert not all_finite(good)


def test_watchdog_notices_a_call_that_does_not_return_and_no_other() -> None:
    said: list[str] = []
    has_said = threading.Event()

    def note(text: str) -> None:
        said.append(text)
        has_said.set()

    watchdog = EnvironmentWatchdog(0.2, note)
    for _ in range(1000):
        with watchdog:
            CountingEnv().reset()
    assert not said
    with watchdog:
        assert has_said.wait(10.0)
    watchdog.close()

    assert len(said) == 1
    assert "has not returned for 0.2 s" in said[0]


HANG = """
import multiprocessing, threading
from impala_actor.environments.watchdog import EnvironmentWatchdog
slot = multiprocessing.Process(target=threading.Event().wait, daemon=True)
slot.start()
print(slot.pid, flush=True)
with EnvironmentWatchdog(0.2):
    threading.Event().wait()
"""


def test_hang_ends_the_process_with_75_its_stacks_and_its_children() -> None:
    """A slot in its own process (env_backend async) ends with the actor (docs/faults.md, 32).

    Seen to fail, for ever, without the watchdog's thread; and, without the kill, with a slot that
    waits for ever.
    """
    command = [sys.executable, "-c", HANG]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)

    lines = done.stderr.strip().splitlines()
    assert done.returncode == TEMPORARY
    assert lines[-1].startswith("error: the environment has not returned for 0.2 s")
    assert any("most recent call first" in line for line in lines)
    deadline_s = time.monotonic() + 10.0  # killed, but its end takes processor time, too
    while is_living(int(done.stdout)):
        assert time.monotonic() < deadline_s, "the slot outlived its actor"
        time.sleep(0.02)


def is_living(pid: int) -> bool:
    """Returns whether a process is there, and not dead and only not yet looked after by anyone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_environment_that_cannot_be_made_is_named_wherever_it_is_played() -> None:
    """Seen to fail in evaluations: a traceback, and an evaluator that was started again."""

    def make() -> EnvironmentAdapter:
        raise RuntimeError("no licence")

    with pytest.raises(UnknownEnvironmentError, match=r"^Sim-v0 cannot be made: .*no licence$"):
        RebuiltEnvironment(make, env="Sim-v0")
