"""LocalTraining: which settings it refuses, and a stop, before any actor starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from running_server import make_config

from impala_common.errors import ConfigError
from impala_common.process.passed_objects import ObjectMemory, Objects
from impala_common.run.run_directory import RunDirectory
from impala_server.local.training import LocalTraining
from impala_server.progress import ProgressDisplay


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

    training = LocalTraining(config, RunDirectory(tmp_path), objects=memory)

    assert training.address is None


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
