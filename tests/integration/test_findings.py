"""Findings in the status, metrics and display of real runs with planted problems.

Each finding alone, from metrics made for it, is in tests/unit/server/test_findings.py. Limits of
time are lower here, so that a run of seconds is judged.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from admin_peer import admin_of
from running_server import TINY, RunningServer, make_config

from impala_common.config import TrainConfig
from impala_common.run import metrics
from impala_server.findings import FINDINGS, FindingsMaker, Thresholds
from impala_server.learner import controller

pytestmark = pytest.mark.timeout(60)

COUNTING = TINY + "Counting-v0"
SOON = Thresholds(min_lines=3, min_updates=10, no_episode_steps=2_000, kl_nats=1e-3)


def make_watched_config(**sections: dict[str, Any]) -> TrainConfig:
    return make_config(checkpoint={"tensorboard": False, "log_interval_s": 0.1}, **sections)


@pytest.mark.parametrize(
    ("name", "env", "sections"),
    [
        ("no_episode_ended", COUNTING, {}),
        ("returns_too_large", "CartPole-v1", {"loss": {"reward_scale": 1e5}}),
        (
            "gradient_always_clipped",
            "CartPole-v1",
            {"loss": {"reward_scale": 1e3}, "optimizer": {"max_grad_norm": 0.5}},
        ),
        (
            "policy_changes_too_fast",
            "CartPole-v1",
            {  # the bonus keeps entropy from 0, where nothing would change any more
                "optimizer": {"learning_rate": 0.01},
                "reuse": {"passes": 4, "parts": 4},
                "loss": {"entropy_cost": 1.0},
            },
        ),
        (
            "entropy_near_zero",
            "CartPole-v1",
            {"optimizer": {"learning_rate": 0.3}, "loss": {"entropy_cost": 0.0}},
        ),
    ],
)
def test_run_that_goes_wrong_says_so_and_what_to_change(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    env: str,
    sections: dict[str, dict[str, Any]],
) -> None:
    """Planted: findings left out of the status, of the front end's answer, of the lines."""
    monkeypatch.setattr(
        controller, "FindingsMaker", functools.partial(FindingsMaker, thresholds=SOON)
    )
    words = name.replace("_", " ") + ": "
    config = make_watched_config(**sections)
    with RunningServer(tmp_path, config) as server, admin_of(server) as admin:
        server.run_actor(
            env, env_kwargs='{"episode_length": 1000000000}' if env == COUNTING else ""
        )

        status = server.wait_until(
            lambda status: any(text.startswith(words) for text in status.get("findings", ()))
        )
        server.wait_until(
            lambda _status: any(text.startswith(words) for text in admin.status()["findings"])
        )

        (text,) = [text for text in status["findings"] if text.startswith(words)]
        assert len(text) > len(words) + 40
        assert status[FINDINGS[name]] == 1.0
        lines = server.metrics()
    assert any(line.get(FINDINGS[name]) == 1.0 for line in lines)
    if name == "no_episode_ended":
        assert lines[-1][metrics.STEPS_SINCE_EPISODE] == lines[-1][metrics.STEPS]
        assert metrics.RETURN_MEAN not in lines[-1]


def test_run_that_goes_well_says_nothing(tmp_path: Path) -> None:
    config = make_watched_config(
        job={"total_steps": 40_000},
        loss={"reward_scale": 0.1, "loss_reduction": "mean"},
        optimizer={"max_grad_norm": 0.5},
    )
    with RunningServer(tmp_path, config) as server:
        server.run_actor("CartPole-v1")
        status = server.wait_finished()

    assert not status["findings"]
    assert all(status[metric] == 0.0 for metric in FINDINGS.values())
