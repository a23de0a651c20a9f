"""Batches that are used again and unrolls that are replayed, through real servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_server import RunningServer, make_config

from impala_common.run import metrics
from impala_common.run.event_history import FOLDER_VARIABLE
from impala_common.testing.history_checker import check

pytestmark = pytest.mark.timeout(60)

REUSE = {
    "passes": 2,
    "parts": 2,
    "surrogate_clip": 0.2,
    "replay_ratio": 1.0,
    "replay_capacity_bytes": 200_000,
}


def test_each_unroll_is_taken_once_however_often_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lives, two learner threads, two actors; the history of all of it is judged.

    Planted: unrolls counted by the width of the mixed batch, which the balance and the checkpoint
    then disagree on.
    """
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "history"))
    config = make_config(
        environment={"envs_per_actor": 4}, rollout={"num_learners": 2}, reuse=REUSE
    )
    num_dropped = 0
    for life in (1, 2):
        with RunningServer(tmp_path / "run", config) as server:
            server.run_actor("CartPole-v1")
            server.run_actor("CartPole-v1")
            server.wait_until(
                lambda status, life=life: status.get(metrics.STEPS, 0) >= life * 2_000
            )
            status = server.stop()
        assert status[metrics.UNROLLS_ACCEPTED] == sum(
            status[name]
            for name in (metrics.UNROLLS_TRAINED, metrics.UNROLLS_DROPPED, metrics.UNROLLS_QUEUED)
        )
        num_dropped += status[metrics.UNROLLS_DROPPED]
    report = check(tmp_path / "history")
    counters = server.checkpoint().state["counters"]

    report.raise_if_violated()
    assert report.figures["unrolls_trained"] == counters["trained_unrolls"]
    assert counters["trained_unrolls"] == 8 * counters["policy_version"]
    assert counters["optimizer_steps"] == 4 * counters["policy_version"]
    assert counters["trained_steps"] <= 64 * counters["policy_version"]
    assert counters["dropped_unrolls"] == num_dropped
    line = next(one for one in reversed(server.metrics()) if metrics.PASSES in one)
    assert line[metrics.PASSES] == 2.0
    assert line[metrics.SAMPLE_AGE_MEAN] > line[metrics.POLICY_LAG_MEAN]


def test_learner_that_waits_for_actors_makes_further_passes(tmp_path: Path) -> None:
    """Passes over a batch go on until the next batch is there; the metrics say how many it were.

    Planted: a source that always has a batch waiting, 1.0 passes.
    """
    config = make_config(
        environment={"envs_per_actor": 4}, reuse={"max_passes": 100, "surrogate_clip": 0.2}
    )
    with RunningServer(tmp_path / "run", config) as server:
        server.run_actor("CartPole-v1")
        server.wait_until(lambda status: status.get(metrics.PASSES, 0.0) > 1.0)
        server.stop()
    counters = server.checkpoint().state["counters"]

    assert counters["trained_unrolls"] == 8 * counters["policy_version"]
    assert counters["optimizer_steps"] > counters["policy_version"]
