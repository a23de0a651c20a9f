"""A canary of action masks: a tiny environment with a known answer, learned through real gRPC."""

from __future__ import annotations

from pathlib import Path

import pytest
from masked_bandit import MaskedBandit
from running_server import RunningServer, make_config

from impala_actor.environments.factory import register_environment
from impala_common.run import metrics

pytestmark = pytest.mark.timeout(150)


def test_masked_bandit_is_solved_without_an_illegal_action(tmp_path: Path) -> None:
    """Masks: drawn and greedy actions are legal, and the choice among them is learned.

    Chance is .5. An illegal action raises, which is counted as a failure of the environment.
    """
    register_environment("object:masked-bandit", MaskedBandit)
    env = "object:masked-bandit"
    config = make_config(
        job={"total_steps": 20_000, "seed": 1},
        environment={"envs_per_actor": 16},
        rollout={"unroll_length": 16, "batch_size": 16, "num_storages": 32},
        optimizer={"learning_rate": 2e-2},
    )

    with RunningServer(tmp_path, config) as server:
        server.run_actor(env)
        status = server.wait_finished(100.0)
        drawn = server.evaluate(env, num_episodes=500, num_slots=50)

    assert drawn.return_mean >= 0.95
    assert status[metrics.ENVIRONMENT_FAILURES] == 0
