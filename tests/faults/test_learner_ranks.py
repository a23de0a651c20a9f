"""Learner ranks that die, stop, are slow or do not fit: the others end with a reason, in time."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from running_ranks import RunningRanks
from running_server import RunningServer, make_config

from impala_actor import admin_cli
from impala_common.config import TrainConfig
from impala_common.process.exit_codes import CONFIG, OK, TEMPORARY
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_common.testing.patterns import SIGNED_ID

pytestmark = pytest.mark.timeout(400)

END_S = 15.0
"""The promise: the others have ended so long after a rank has died."""


def make_settings(total_steps: int = 20_000, **ranks: object) -> TrainConfig:
    return make_config(
        job={"total_steps": total_steps},
        environment={"envs_per_actor": 4},
        checkpoint={"checkpoint_interval_steps": 1000, "log_interval_s": 0.2},
        ranks={"rank_join_s": 100.0, **ranks},
    )


def newest_checkpoint(path: Path) -> tuple[int, int]:
    """Returns steps and updates of the newest whole checkpoint."""
    checkpoint = CheckpointStore(RunDirectory(path / "run").checkpoints_path).load_newest()
    return checkpoint.step, checkpoint.state["counters"]["policy_version"]


@pytest.mark.parametrize(
    ("victim", "failpoint"),
    [
        (1, "update.before_step=@30:kill9"),
        pytest.param(1, "ranks.before_meeting=@80:kill9", marks=pytest.mark.extended),
        pytest.param(0, "checkpoint.before_rename=@3:kill9", marks=pytest.mark.extended),
    ],
    ids=["in_update", "in_all_reduce", "in_save"],
)
def test_ranks_end_soon_after_one_is_killed_and_go_on_from_one_checkpoint(
    tmp_path: Path, victim: int, failpoint: str
) -> None:
    other = 1 - victim
    with RunningRanks(tmp_path, make_settings(10**9), failpoints={victim: failpoint}) as ranks:
        ranks.run_actors(SIGNED_ID)
        assert ranks.wait(victim, 150.0) == -signal.SIGKILL, ranks.error(victim)
        died_s = time.monotonic()
        code = ranks.wait(other, END_S)

        assert time.monotonic() - died_s < END_S
        assert code == TEMPORARY, ranks.error(other)
        assert "a learner rank is gone" in ranks.error(other)
    steps, updates = newest_checkpoint(tmp_path)
    assert updates > 0

    with RunningRanks(tmp_path, make_settings(steps + 2000)) as ranks:
        ranks.run_actors(SIGNED_ID)

        assert ranks.wait(0, 150.0) == ranks.wait(1, 20.0) == OK, ranks.error(0)
    assert newest_checkpoint(tmp_path)[0] >= steps + 2000


@pytest.mark.extended
def test_ranks_end_soon_after_one_stops_answering(tmp_path: Path) -> None:
    """As after a partition, or the death of a host: no connection is closed."""
    with RunningRanks(tmp_path, make_settings(10**9, rank_timeout_s=6.0)) as ranks:
        ranks.run_actors(SIGNED_ID)
        ranks.wait_until(lambda: ranks.newest(metrics.UPDATES) > 20, "updates", 150.0)
        ranks.processes[1].send_signal(signal.SIGSTOP)

        assert ranks.wait(0, END_S) == TEMPORARY
        assert "has not answered for 6 s" in ranks.error(0)
    assert newest_checkpoint(tmp_path)[1] > 20


@pytest.mark.extended
def test_drain_and_shutdown_at_rank_0_end_all_ranks_after_the_same_update(tmp_path: Path) -> None:
    with RunningRanks(tmp_path, make_settings(10**9)) as ranks:
        ranks.run_actors(SIGNED_ID)
        ranks.wait_until(lambda: ranks.newest(metrics.UPDATES) > 20, "updates", 150.0)

        assert admin_cli.run(["--run", str(ranks.run.path), "drain"]) == OK
        assert admin_cli.run(["--run", str(ranks.run.path), "shutdown"]) == OK
        assert ranks.wait(0, 60.0) == ranks.wait(1, 60.0) == OK, ranks.error(1)
        last = [ranks.metrics(rank)[-1][metrics.UPDATES] for rank in (0, 1)]
    assert last[0] == last[1] == newest_checkpoint(tmp_path)[1] > 20


@pytest.mark.extended
def test_rank_that_is_slow_is_named(tmp_path: Path) -> None:
    with RunningRanks(
        tmp_path, make_settings(10**9), failpoints={1: "ranks.in_update=sleep:0.05"}
    ) as ranks:
        ranks.run_actors(SIGNED_ID)

        ranks.wait_until(lambda: "rank 1 is a straggler" in ranks.error(0), "warning", 200.0)
        line = ranks.metrics()[-1]
        assert line[metrics.rank_metric(1, "update_s")] > 0.05
        assert line[metrics.rank_metric(0, "update_s")] < 0.05


def test_rank_with_other_settings_is_refused_by_all(tmp_path: Path) -> None:
    wrong = make_config(loss={"discount": 0.5})
    with RunningRanks(tmp_path, make_settings(), settings={1: wrong}) as ranks:
        codes = [ranks.wait(rank, 150.0) for rank in (0, 1)]

        assert codes == [CONFIG, CONFIG]
        assert "discount of learner rank 1" in ranks.error(0)


@pytest.mark.extended
def test_rank_without_actors_ends_the_run_in_time(tmp_path: Path) -> None:
    with RunningRanks(tmp_path, make_settings(rank_wait_s=2.0)) as ranks:
        ranks.run_actors(SIGNED_ID, num_actors=1)

        assert ranks.wait(0, 150.0) == ranks.wait(1, 20.0) == TEMPORARY
        for rank in (0, 1):
            assert "rank 1 had no batch for 2 s" in ranks.error(rank)


@pytest.mark.extended
def test_run_with_an_empty_rank_allowed_goes_on_without_it(tmp_path: Path) -> None:
    settings = make_settings(4000, rank_wait_s=1.0, allow_empty_rank=True)
    with RunningRanks(tmp_path, settings) as ranks:
        ranks.run_actors(SIGNED_ID, num_actors=1)

        assert ranks.wait(0, 150.0) == ranks.wait(1, 20.0) == OK, ranks.error(0)
    assert newest_checkpoint(tmp_path)[0] >= 4000


@pytest.mark.extended
def test_checkpoint_of_two_ranks_is_gone_on_from_by_one_and_by_three(tmp_path: Path) -> None:
    with RunningRanks(tmp_path, make_settings(2000)) as ranks:
        ranks.run_actors(SIGNED_ID)
        assert ranks.wait(0, 150.0) == ranks.wait(1, 20.0) == OK, ranks.error(0)
    two = newest_checkpoint(tmp_path)

    with RunningServer(tmp_path / "run", make_settings(4000)) as server:
        server.run_actor(SIGNED_ID)
        server.wait_finished()
    one = newest_checkpoint(tmp_path)

    with RunningRanks(tmp_path, make_settings(8000), num_ranks=3) as ranks:
        ranks.run_actors(SIGNED_ID, num_actors=3)
        assert [ranks.wait(rank, 150.0) for rank in range(3)] == [OK] * 3, ranks.error(0)
    three = newest_checkpoint(tmp_path)

    assert 2000 <= two[0] < 4000 <= one[0] < 8000 <= three[0]
    assert two[1] < one[1] < three[1]
