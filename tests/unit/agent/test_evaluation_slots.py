"""eval() of a vector class that has as many environments as it likes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from running_server import make_config

from impala_agent.in_process import evaluate_in_process
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec


class Five(VectorEnv[Any, Any, Any]):
    """Five environments, however many are asked for; episodes of two steps."""

    def __init__(self, **unused: Any) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = 5
        self.single_observation_space = spaces.Box(0, 1, (2,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, 5)
        self.action_space = batch_space(self.single_action_space, 5)
        self.t = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros((5, 2), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.t = (self.t + 1) % 3
        ended = np.full(5, self.t == 2)
        return np.zeros((5, 2), np.float32), np.ones(5), ended, np.zeros(5, np.bool_), {}


def test_network_with_memory_plays_as_many_slots_as_the_environment_has() -> None:
    """Seen to fail: its memory was made for the slots that were asked for, and torch raised."""
    gymnasium.register("Five-v0", entry_point=None, vector_entry_point=Five)
    leaf = TensorSpec("observation", (2,), "float32")
    environment = EnvironmentSpec((leaf,), ActionSpec.discrete(2))
    config = make_config(
        environment={"env": "Five-v0", "env_backend": "entry-point"},
        model={"recurrence": "gru", "hidden_dim": 4, "hidden_sizes": (4,)},
    )
    network = make_model(resolve_model_spec(config.model, environment), environment, seed=0)

    result = evaluate_in_process(network, "Five-v0", config, num_episodes=2, is_greedy=True)

    assert (result.num_episodes, result.return_mean) == (5, 2.0)
