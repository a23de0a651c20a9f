"""The last checkpoint of a learner that ends: where the disk refuses it, the end is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from admin_peer import wait_for_updates
from running_server import TINY, RunningServer, make_config

from impala_common.errors import CheckpointWriteError
from impala_common.process import failpoints
from impala_common.process.exit_codes import UNUSABLE_DATA, exit_code_of

pytestmark = pytest.mark.timeout(60)
ENV = TINY + "Counting-v0"
FULL_DISK = "checkpoint.before_rename=raise:oserror"


def test_learner_that_is_stopped_without_its_last_checkpoint_says_what_is_lost(
    tmp_path: Path,
) -> None:
    """Seen to fail: the command ended with 0, as if all were saved."""
    with RunningServer(tmp_path / "run", make_config()) as server:
        server.run_actor(ENV)
        wait_for_updates(server, 2)
        first = server.checkpoint().name
        with failpoints.armed(FULL_DISK):
            server.supervisor.close()

        with pytest.raises(CheckpointWriteError, match=f"the newest is {first}") as caught:
            server.supervisor.raise_if_incomplete()
    assert exit_code_of(caught.value) == UNUSABLE_DATA


def test_run_that_finishes_without_its_last_checkpoint_fails(tmp_path: Path) -> None:
    """Its actors are told that it has finished all the same. Seen to fail: it ended with 0."""
    config = make_config(job={"total_steps": 2_000})
    with (
        RunningServer(tmp_path / "run", config) as server,
        failpoints.armed("checkpoint.before_rename=@2:raise:oserror"),
    ):
        actor = server.run_actor(ENV)
        with pytest.raises(CheckpointWriteError, match="could not be written"):
            server.wait_until(lambda _: False)
        actor.join()
        assert server.supervisor.status.reason == "finished"


def test_last_checkpoint_that_is_written_leaves_nothing_to_say(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "run", make_config()) as server:
        server.run_actor(ENV)
        wait_for_updates(server, 2)
        server.supervisor.close()

        server.supervisor.raise_if_incomplete()
