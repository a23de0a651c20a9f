"""Observations of several parts, from a nested space to an answer learned through real gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from running_server import RunningServer, make_config

from impala_actor.environments.factory import register_environment
from impala_common.policy.frozen_run import read_specs

pytestmark = pytest.mark.timeout(60)


class PartsBanditEnv(gymnasium.Env[Any, Any]):
    """One step: a third of 1 for each part - a number, a bit, a picture - that the action repeats.

    Who does not see one of the three gets five sixths at most; chance is a half.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {
                "sight": spaces.Box(0, 255, (6, 6, 1), np.uint8),
                "rest": spaces.Tuple((spaces.Discrete(2, start=5), spaces.MultiBinary(1))),
            }
        )
        self.action_space = spaces.MultiDiscrete([2, 2, 2])
        self._answer = np.zeros(3, np.int64)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._start(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float((action == self._answer).mean())
        return self._start(), reward, True, False, {}

    def _start(self) -> dict[str, Any]:
        self._answer = self.np_random.integers(2, size=3)
        number, bit, bright = self._answer
        picture = np.full((6, 6, 1), 255 * bright, np.uint8)
        return {"sight": picture, "rest": (5 + number, np.array([bit], np.int8))}


def test_answer_in_three_parts_of_an_observation_is_learned(tmp_path: Path) -> None:
    """Seen: .995 and more with seeds 1 to 4; .95 is demanded. In lockstep: some runs settled on
    two parts of the three where chance decided which unrolls met. Planted: number and bit hidden
    from the network .67.
    """
    register_environment("object:parts-bandit", PartsBanditEnv)
    config = make_config(
        job={"total_steps": 8_000, "seed": 1, "lockstep": True},
        model={"model": "auto", "feature_dim": 64, "hidden_dim": 0},
        optimizer={"learning_rate": 1e-2},
    )

    with RunningServer(tmp_path, config) as server:
        server.run_actor("object:parts-bandit")
        server.wait_finished()
        evaluation = server.evaluate("object:parts-bandit", num_episodes=400, num_slots=40)

    environment, model = read_specs(server.run.specs_path)
    assert model.name == "multi"
    assert [(leaf.name, leaf.shape, leaf.dtype) for leaf in environment.observation_leaves] == [
        ("observation/rest/0", (2,), "float32"),
        ("observation/rest/1", (1,), "int8"),
        ("observation/sight", (6, 6, 1), "uint8"),
    ]
    assert evaluation.return_mean >= 0.95
