"""The supervisor names the process that died, with pipes and children made by the test.

When one of the two processes dies the other ends by itself, at once; whichever end the
supervisor sees first, it must name the one that died.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_server import make_config

from impala_common import errors
from impala_common.config import JobConfig, TrainConfig
from impala_common.run.run_directory import RunDirectory
from impala_server.children import Child, make_child_specs
from impala_server.messages import Failed, LearnerStatus, StatusNews, Stop
from impala_server.storage.control_pipe import ControlPipe
from impala_server.storage.frame_pipe import make_pair
from impala_server.supervisor import Supervisor

NAMES = ("learner", "front_end")


class Machine:
    """A supervisor, and the children's ends of its pipes. The children only wait."""

    def __init__(self, path: Path) -> None:
        run, config = RunDirectory(path), make_config()
        self.supervisor = Supervisor(config, run)
        code = "import sys; sys.stdin.read()"
        self.children = {
            name: subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE)
            for name in NAMES
        }
        specs = make_child_specs(config, run, None)
        assert tuple(specs) == NAMES
        self.pipes = {}
        for name, process in self.children.items():
            ours, theirs = make_pair()
            child = Child(name, specs[name], ControlPipe(ours))
            child.adopt(process)
            self.supervisor._children[name] = child
            self.pipes[name] = ControlPipe(theirs)
        self.learner = self.pipes["learner"]
        self.status("RUNNING")
        self.supervisor.poll(1.0)

    def status(self, state: str, reason: str = "") -> None:
        self.learner.send(StatusNews(LearnerStatus(state=state, reason=reason)))

    def kill(self, name: str) -> None:
        """Lets a child die, as the supervisor sees it."""
        self.children[name].kill()
        self.children[name].wait(10.0)
        self.pipes[name].close()

    def end(self, name: str) -> None:
        """Lets a child end by itself."""
        child = self.children[name]
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10.0) == 0
        self.pipes[name].close()

    def close(self) -> None:
        for child in self.children.values():
            child.kill()
            child.wait(10.0)
            assert child.stdin is not None
            child.stdin.close()
        for pipe in self.pipes.values():
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
    machine.learner.send(Failed(errors.ModelError.reason, "there is no such class"))
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
        assert machine.learner.receive(1.0) == Stop()
    machine.status("DRAINING")
    machine.status("STOPPED", reason=reason)
    machine.end("learner")

    assert machine.supervisor.poll(1.0) is None
    assert machine.supervisor.status == LearnerStatus(state="STOPPED", reason=reason)


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
    machine.pipes[name].send(Failed(kind.reason, "some reason"))

    with pytest.raises(errors.ImpalaError, match="some reason") as caught:
        machine.supervisor.poll(1.0)

    assert type(caught.value) is kind


def finish(machine: Machine) -> None:
    """Lets the run end by itself: the learner has said so, but its process is still there."""
    for child in machine.supervisor._children.values():
        child.spec = dataclasses.replace(child.spec, stop_patience_s=0.1)
    machine.status("STOPPED", "finished")
    machine.learner.close()
    assert machine.supervisor.poll(1.0) is None


def test_children_of_a_run_that_ended_by_itself_are_waited_for(machine: Machine) -> None:
    """Seen to fail: on a busy machine they were killed, and a complete run ended with an error."""
    finish(machine)
    num_looks = 0

    def look() -> bool:
        nonlocal num_looks
        num_looks += 1
        if num_looks in (100, 200):  # each far beyond the patience with a child that is to stop
            stdin = machine.children[NAMES[num_looks // 100 - 1]].stdin
            assert stdin is not None
            stdin.close()
        return False

    machine.supervisor.close(look)

    assert num_looks >= 200
    assert machine.supervisor.killed == ()


def test_children_of_a_run_that_ended_by_itself_are_killed_once_a_stop_is_wanted(
    machine: Machine,
) -> None:
    finish(machine)

    machine.supervisor.close(lambda: True)

    assert machine.supervisor.killed == ("learner", "front-end")


@pytest.mark.parametrize(
    ("num_threads", "num_actors", "sleeps"), [(1, 4, False), (2, 1, True), (2, 0, False)]
)
def test_threads_of_a_learner_wait_asleep_where_actors_need_its_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_threads: int,
    num_actors: int,
    sleeps: bool,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda unused_pid: {0, 1})
    config = TrainConfig(job=JobConfig(learner_threads=num_threads, num_actors=num_actors))

    specs = make_child_specs(config, RunDirectory(tmp_path), None)

    assert ("GOMP_SPINCOUNT" in specs["learner"].environment) is sleeps
