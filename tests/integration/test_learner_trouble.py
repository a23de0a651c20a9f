"""A learner in trouble waits for an administrator, or ends with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from admin_peer import admin_of, wait_for_updates
from running_server import TINY, RunningServer, make_config

from impala_common.config import TrainConfig
from impala_common.errors import (
    CheckpointWriteError,
    IllegalTransitionError,
    ImpalaError,
    TrainingDivergedError,
)
from impala_common.process import failpoints
from impala_common.run import metrics
from impala_server.learner.update import Updater

pytestmark = pytest.mark.timeout(60)
ENV = TINY + "Counting-v0"


def make_pausing_config(**optimizer: Any) -> TrainConfig:
    return make_config(
        optimizer={"when_diverged": "pause", "max_nonfinite_updates": 3, **optimizer},
        environment={"envs_per_actor": 4},
        rollout={"batch_size": 4},
    )


class BadLosses:
    """Makes losses that are not finite, or forward passes without memory, while `kind` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kind = ""
        compute = Updater.compute_losses

        def compute_or_fail(updater: Updater, batch: Any) -> Any:
            if self.kind == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            losses = compute(updater, batch)
            factor = torch.nan if self.kind == "loss" else 1.0
            return losses._replace(total_loss=losses.total_loss * factor)

        monkeypatch.setattr(Updater, "compute_losses", compute_or_fail)


@pytest.mark.parametrize("kind", ["loss", "memory"])
def test_learner_in_trouble_pauses_and_goes_on_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nothing is published meanwhile; the last good checkpoint stays (docs/faults.md, 10, 34).

    Seen to fail with TrainingDivergedError raised whatever the setting says: the server ended.
    """
    bad = BadLosses(monkeypatch)
    with RunningServer(tmp_path, make_pausing_config()) as server, admin_of(server) as admin:
        server.run_actor(ENV)
        wait_for_updates(server)
        saved = admin.ask("SaveCheckpoint")["checkpoint"]["name"]
        bad.kind = kind
        server.wait_until(lambda status: status["state"] == "PAUSED")
        server.wait_until(lambda _status: admin.status()["trouble"] != "")  # told a little later
        version = admin.status()["learner"]["policy_version"]
        trouble = admin.status()["trouble"]
        skipped = server.supervisor.status.metrics[metrics.SKIPPED_UPDATES]

        assert "impala-admin resume" in trouble
        assert ("not finite" if kind == "loss" else "no memory") in trouble
        assert skipped == (3 if kind == "loss" else 0)
        assert all(np.isfinite(array).all() for array in server.weights().values())
        assert saved in [one["name"] for one in admin.ask("ListCheckpoints")["checkpoints"]]
        bad.kind = ""
        assert admin.status()["learner"]["policy_version"] == version
        admin.ask("Resume")
        wait_for_updates(server)

        server.wait_until(lambda _status: admin.status()["trouble"] == "")
        assert admin.status()["state"] == "RUNNING"


def test_damaged_weights_are_neither_published_nor_saved_and_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that overflows, though loss and gradient were finite.

    Seen to fail without the look at the weights: they were published, and the next checkpoint
    held them.
    """
    is_bad = False
    step = torch.optim.Adam.step

    def step_badly(optimizer: Any, *arguments: Any) -> Any:
        result = step(optimizer, *arguments)
        if is_bad:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].fill_(torch.inf)
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", step_badly)
    with RunningServer(tmp_path, make_pausing_config()) as server, admin_of(server) as admin:
        server.run_actor(ENV)
        wait_for_updates(server)
        saved = admin.ask("SaveCheckpoint")["checkpoint"]["name"]
        is_bad = True
        server.wait_until(lambda status: status["state"] == "PAUSED")
        is_bad = False
        with pytest.raises(CheckpointWriteError, match="last good checkpoint stays the newest"):
            admin.ask("SaveCheckpoint")
        with pytest.raises(IllegalTransitionError, match="first go back to a checkpoint"):
            admin.ask("Resume")
        server.wait_until(lambda _status: admin.status()["state"] == "PAUSED")
        admin.ask("Rollback", name=saved)
        admin.ask("Resume")
        wait_for_updates(server)

    assert all(np.isfinite(array).all() for array in server.weights().values())


def test_run_that_nobody_administrates_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """impala-train: whoever waits for it learns at once, and gets the last good weights."""
    bad = BadLosses(monkeypatch)
    config = make_pausing_config(when_diverged="auto")
    with RunningServer(tmp_path, config) as server:
        server.run_actor(ENV)
        wait_for_updates(server)
        bad.kind = "loss"
        with pytest.raises(TrainingDivergedError, match="last good weights are kept"):
            wait_for_end(server)

    assert all(np.isfinite(array).all() for array in server.weights().values())


def test_learner_thread_that_raises_ends_the_run_in_order_and_the_next_life_goes_on(
    tmp_path: Path,
) -> None:
    """An unexpected error in one of two learner threads (docs/faults.md, 11).

    Seen to fail with a failure that ends its thread alone: the other trained on as if nothing were.
    """
    config = make_config(
        environment={"envs_per_actor": 4}, rollout={"batch_size": 4, "num_learners": 2}
    )
    with RunningServer(tmp_path, config) as server:
        server.run_actor(ENV)
        wait_for_updates(server)
        with (
            failpoints.armed("learner.before_update=@10:raise"),
            pytest.raises(ImpalaError, match="InjectedError: failpoint learner"),
        ):
            wait_for_end(server)
    saved = server.checkpoint().step
    assert saved == server.metrics()[-1][metrics.STEPS] > 0, "saved after the last update"

    with RunningServer(tmp_path, config) as server:
        server.run_actor(ENV)
        wait_for_updates(server)
        assert min(line[metrics.STEPS] for line in server.metrics()) > 0
        assert server.stop()[metrics.STEPS] > saved


def wait_for_end(server: RunningServer) -> None:
    """Polls until the learner says why it ended."""
    while server.supervisor.poll(0.1) is not None:
        pass
    raise ImpalaError("it ended without a reason")
