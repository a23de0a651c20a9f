"""LocalTraining: which settings it refuses before any process starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running_server import make_config

from impala_common.errors import ConfigError
from impala_common.process.passed_objects import ObjectMemory, Objects
from impala_common.run.run_directory import RunDirectory
from impala_server.local.training import LocalTraining


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


@pytest.mark.parametrize("memory", [{("environment", "object:it"): b"packed"}], indirect=True)
def test_several_ranks_are_refused_where_memory_holds_objects(
    tmp_path: Path, memory: ObjectMemory
) -> None:
    config = make_config(ranks={"learner_ranks": 2})

    with pytest.raises(ConfigError, match="1 with Python objects"):
        LocalTraining(config, RunDirectory(tmp_path), objects=memory)
