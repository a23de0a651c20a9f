"""LocalTraining: which settings it refuses, and a stop, before any actor starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from running_server import make_config

from impala_common.errors import ConfigError
from impala_common.process.passed_objects import ObjectMemory, Objects
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server.local import training
from impala_server.local.training import LocalTraining
from impala_server.messages import LearnerStatus
from impala_server.progress import ProgressDisplay


class FakeSupervisor:
    """Takes every call, and does nothing."""

    status = LearnerStatus(state="STARTING")

    def __getattr__(self, name: str) -> Callable[..., str]:
        return lambda *_: "127.0.0.1:1"


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[ObjectMemory]:
    objects: Objects = request.param
    memory = ObjectMemory(objects)
    yield memory
    memory.close()


@pytest.mark.parametrize("memory", [{}], indirect=True)
def test_several_ranks_are_taken_where_memory_holds_no_objects(
    tmp_path: Path, memory: ObjectMemory
) -> None:
    """Seen to fail when any memory was refused: the class IMPALA always passes one."""
    config = make_config(ranks={"learner_ranks": 2})

    local = LocalTraining(config, RunDirectory(tmp_path), objects=memory)

    assert local.address is None


def test_stop_that_comes_while_the_learner_starts_starts_no_actors(tmp_path: Path) -> None:
    """Before: actors were started, only to be told to leave a moment later."""
    run = RunDirectory(tmp_path / "run")
    config = make_config(environment={"env": "CartPole-v1"}, job={"num_actors": 1})
    display = ProgressDisplay(100, "run", Console(quiet=True))

    status = LocalTraining(config, run, has_log_files=True).run(display, lambda: True)

    assert status.state == "STOPPED"
    assert run.address_path.parent.exists()
    assert not list(run.log_path.glob("actor-*"))


@pytest.mark.parametrize("memory", [{("environment", "object:it"): b"packed"}], indirect=True)
def test_several_ranks_are_refused_where_memory_holds_objects(
    tmp_path: Path, memory: ObjectMemory
) -> None:
    config = make_config(ranks={"learner_ranks": 2})

    with pytest.raises(ConfigError, match="1 with Python objects"):
        LocalTraining(config, RunDirectory(tmp_path), objects=memory)


def test_actors_are_told_how_often_the_learner_was_started_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the learner counts its lives. A checkpoint of this life, written meanwhile, is no other.

    Seen to fail: thin actors of a resumed run had the seeds of those before.
    """
    lives: list[int] = []

    class NoActorsError(Exception):
        """Ends the training where the actors would be made."""

    def make(*arguments: object) -> None:
        lives.append(arguments[-1])  # type: ignore[arg-type]
        raise NoActorsError

    monkeypatch.setattr(training, "LocalActors", make)
    run = RunDirectory(tmp_path)
    run.create()
    tensors = {"model": {"w": np.zeros(1, np.float32)}}
    for life in range(3):
        local = LocalTraining(make_config(), run)
        local._supervisor = local._ranks = FakeSupervisor()  # type: ignore[assignment]
        counters = {"trained_steps": life, "learner_life": life}
        CheckpointStore(run.checkpoints_path).save(life, tensors, {"counters": counters})
        with pytest.raises(NoActorsError):
            local.run(FakeSupervisor(), lambda: False)  # type: ignore[arg-type]

    assert lives == [0, 1, 2]
