"""Thin actors, policy server and learner killed (-9) in play, judged by the history checker.

The recorder of the kit is the policy server itself, which writes what it sends as every actor does;
observations are signed, so that each trained row says of which environment and time it is.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands import Command, free_port, steps_of
from faults.cluster import SERVER_OPTIONS
from faults.row_figures import amount, record

from impala_common.process.exit_codes import OK
from impala_common.run.run_directory import RunDirectory
from impala_common.testing.history_checker import check
from impala_common.testing.patterns import SIGNED_ID

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

_WAIT_S = 60.0
_NUM_SLOTS = 4


class ThinCluster:
    """A learner server, a policy server and two thin actors as processes, on fixed ports.

    Attributes:
      run: the run's folder.
      commands: by name: learner, policy, thin-0, thin-1.
    """

    def __init__(self, folder: Path) -> None:
        self.run = RunDirectory(folder / "run")
        self.commands: dict[str, Command] = {}
        self._folder = folder
        self._learner_port, self._policy_port = free_port(), free_port()

    def __enter__(self) -> ThinCluster:
        for name in ("learner", "policy", "thin-0", "thin-1"):
            self.start(name)
        return self

    def __exit__(self, *unused: object) -> None:
        for command in self.commands.values():
            command.__exit__(None, None, None)

    def start(self, name: str) -> None:
        if name == "learner":
            options = [str(one) for pair in SERVER_OPTIONS.items() for one in pair]
            options += ["--run-dir", "run", "--resume-if-exists", "--quiet", "--no-tensorboard"]
            options += ["--port", str(self._learner_port), "--device", "cpu"]
            self.commands[name] = Command(self._folder, "impala-server", *options)
        elif name == "policy":
            options = ["--learner", f"127.0.0.1:{self._learner_port}", "--actor-id", "policy"]
            options += ["--port", str(self._policy_port), "--inference-backend", "numpy"]
            self.commands[name] = Command(self._folder, "impala-policy-server", *options)
        else:
            options = ["--server", f"127.0.0.1:{self._policy_port}", "--env", SIGNED_ID]
            options += ["--client-id", name, "--slots", str(_NUM_SLOTS)]
            options += ["--env-kwargs", '{"step_s": 0.0005}']
            self.commands[name] = Command(self._folder, "impala-thin-actor", *options)

    def kill(self, name: str) -> None:
        """Kills a command with all its children, and starts it again."""
        command = self.commands[name]
        processes = [*command.children(), psutil.Process(command.process.pid)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=_WAIT_S)
        command.wait(_WAIT_S)
        self.start(name)

    def train_on(self, num_steps: int = 3000) -> None:
        """Waits until so many more steps are trained, and nobody but the killed has ended."""
        waiting, before = threading.Event(), steps_of(self.run)
        for _ in range(int(_WAIT_S / 0.1)):
            for name, command in self.commands.items():
                assert command.process.poll() is None, f"{name} ended: {command.err}"
            now = steps_of(self.run)
            before = min(before, now)  # a learner that was killed goes on from its checkpoint
            if now > before + num_steps:
                return
            waiting.wait(0.1)
        raise AssertionError(f"no training; { ({n: c.err for n, c in self.commands.items()}) }")

    def stop(self) -> None:
        """Ends all in order, thin actors first."""
        for name in ("thin-0", "thin-1", "policy", "learner"):
            self.commands[name].interrupt(signal.SIGTERM)
            assert self.commands[name].wait() == OK, self.commands[name].err


@pytest.fixture
def cluster(tmp_path: Path, history: Path) -> Iterator[ThinCluster]:
    with ThinCluster(tmp_path) as started:
        started.train_on()
        yield started


def test_kill_of_thin_actor_policy_server_and_learner_loses_and_repeats_nothing(
    cluster: ThinCluster, history: Path
) -> None:
    """What was acknowledged is trained once; slots of who lives go on without a restart."""
    num_rounds = amount(1, 20)
    untouched = cluster.commands["thin-1"].process.pid

    for _ in range(num_rounds):
        for name in ("thin-0", "policy", "learner"):
            cluster.kill(name)
            cluster.train_on()
    assert cluster.commands["thin-1"].process.pid == untouched, "it lived through all of it"
    cluster.stop()

    report = check(history)
    report.raise_if_violated()
    figures = report.figures
    assert figures["learner_lives"] == num_rounds + 1
    assert figures["actor_lives"] == num_rounds + 1
    assert figures["unrolls_trained"] >= 3 * num_rounds * 3000 // SERVER_OPTIONS["--unroll-length"]
    record(77, kills=3 * num_rounds, **figures)


@pytest.mark.extended
def test_stopped_thin_actor_is_given_up_and_goes_on_when_it_comes_back(
    cluster: ThinCluster, history: Path
) -> None:
    """SIGSTOP and SIGCONT: a client that hangs holds up nobody, and its slots resume."""
    stopped = psutil.Process(cluster.commands["thin-0"].process.pid)
    for _ in range(amount(1, 10)):
        stopped.suspend()
        cluster.train_on()
        stopped.resume()
        cluster.train_on()
    cluster.stop()

    check(history).raise_if_violated()
