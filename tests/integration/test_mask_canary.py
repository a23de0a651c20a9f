"""A canary of action masks: a tiny environment with a known answer, learned through real gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from running_server import RunningServer, make_config

from impala_actor.environments.factory import register_environment
from impala_common.run import metrics
from impala_common.testing.environments import ContextualBanditEnv

pytestmark = pytest.mark.timeout(60)


class MaskedBandit(ContextualBanditEnv):
    """The bandit with 8 actions, of which the right one and another are legal; others raise."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(8)
        self._mask = np.ones(8, np.int8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().reset(seed=seed, options=options)
        return observation, {"action_mask": self._mask}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self._mask[action]:
            raise ValueError(f"illegal action {action}: {self._mask}")
        observation, reward, *ends, _ = super().step(action)
        return observation, reward, *ends, {"action_mask": self._mask}  # type: ignore[return-value]

    def _start(self) -> Any:
        observation = super()._start()
        others = [action for action in range(8) if action != self._context]
        self._mask = np.zeros(8, np.int8)
        self._mask[[self._context, self.np_random.choice(others)]] = 1
        return observation


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
        status = server.wait_finished()
        drawn = server.evaluate(env, num_episodes=500, num_slots=50)

    assert drawn.return_mean >= 0.95
    assert status[metrics.ENVIRONMENT_FAILURES] == 0
