"""The supervisor names the process that died, with pipes and children made by the test.

When one of the two processes dies the other ends by itself, at once; whichever end the
supervisor sees first, it must name the one that died.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import pytest
from running_server import make_config

from impala_common import errors
from impala_common.run.run_directory import RunDirectory
from impala_server.storage.handoff import ControlPipe
from impala_server.supervisor import Supervisor

NAMES = ("learner", "front_end")


class Machine:
    """A supervisor, and the children's ends of its pipes. The children only wait."""

    def __init__(self, path: Path) -> None:
        self.supervisor = Supervisor(make_config(), RunDirectory(path))
        code = "import sys; sys.stdin.read()"
        self.children = {
            name: subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE)
            for name in NAMES
        }
        ends = [Pipe(duplex=True) for _ in NAMES]
        self.learner, self.front_end = (ControlPipe(theirs) for _, theirs in ends)
        self.supervisor._children = dict(self.children)
        self.supervisor._learner_pipe, self.supervisor._front_end_pipe = (
            ControlPipe(ours) for ours, _ in ends
        )
        self.status("RUNNING")
        self.supervisor.poll(1.0)

    def status(self, state: str, **more: str) -> None:
        self.learner.send("status", status={"state": state, **more})

    def kill(self, name: str) -> None:
        """Lets a child die, as the supervisor sees it."""
        self.children[name].kill()
        self.children[name].wait(10.0)
        getattr(self, name).close()

    def end(self, name: str) -> None:
        """Lets a child end by itself."""
        child = self.children[name]
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10.0) == 0
        getattr(self, name).close()

    def close(self) -> None:
        for child in self.children.values():
            child.kill()
            child.wait(10.0)
            assert child.stdin is not None
            child.stdin.close()
        for pipe in (self.learner, self.front_end):
            pipe.close()
        self.supervisor.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


def test_poll_when_the_learner_dies_names_it_and_its_signal(machine: Machine) -> None:
    machine.kill("learner")

    with pytest.raises(errors.ImpalaError, match=r"learner process died \(signal 9\)"):
        machine.supervisor.poll(1.0)


def test_poll_when_the_front_end_has_followed_a_dead_learner_names_the_learner(
    machine: Machine,
) -> None:
    """Seen to fail when the end of the front end's pipe alone decided."""
    machine.kill("learner")
    machine.end("front_end")

    with pytest.raises(errors.ImpalaError, match="the learner process died"):
        machine.supervisor.poll(1.0)


def test_poll_when_the_front_end_has_followed_a_failed_learner_says_why_that_failed(
    machine: Machine,
) -> None:
    """The learner takes its time to leave. Seen to fail when the front end's end came first."""
    machine.learner.send("failed", reason=errors.ModelError.reason, text="there is no such class")
    machine.learner.close()
    machine.end("front_end")

    with pytest.raises(errors.ModelError, match="there is no such class"):
        machine.supervisor.poll(1.0)


def test_poll_when_the_front_end_dies_names_it(machine: Machine) -> None:
    machine.kill("front_end")

    with pytest.raises(errors.ImpalaError, match=r"front-end process died \(signal 9\)"):
        machine.supervisor.poll(1.0)


def test_poll_when_the_learner_has_stopped_for_a_dead_front_end_names_the_front_end(
    machine: Machine,
) -> None:
    """Its pipe still stands. Seen to fail (as if all were well) without the look at the reason."""
    machine.status("DRAINING")
    machine.status("STOPPED", reason="stopping")
    machine.end("learner")
    machine.children["front_end"].kill()

    with pytest.raises(errors.ImpalaError, match="the front-end process died"):
        machine.supervisor.poll(1.0)


@pytest.mark.parametrize("reason", ["finished", "stopping"])
def test_poll_when_the_learner_has_ended_as_it_should_returns_none(
    machine: Machine, reason: str
) -> None:
    if reason == "stopping":
        machine.supervisor.request_stop()
        assert machine.learner.receive(1.0) == {"kind": "stop"}
    machine.status("DRAINING")
    machine.status("STOPPED", reason=reason)
    machine.end("learner")

    assert machine.supervisor.poll(1.0) is None
    assert machine.supervisor.status == {"state": "STOPPED", "reason": reason}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("learner", errors.CheckpointError),
        ("learner", errors.TrainingDivergedError),
        ("learner", errors.UnsupportedSpaceError),
        ("front_end", errors.AddressInUseError),
        ("front_end", errors.ImpalaError),
    ],
)
def test_poll_when_a_process_says_why_it_failed_raises_that(
    machine: Machine, name: str, kind: type[errors.ImpalaError]
) -> None:
    getattr(machine, name).send("failed", reason=kind.reason, text="some reason")

    with pytest.raises(errors.ImpalaError, match="some reason") as caught:
        machine.supervisor.poll(1.0)

    assert type(caught.value) is kind
