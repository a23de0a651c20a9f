"""Small agents of the class IMPALA, and one that has trained, for the tests of its rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from impala_agent.results import TrainResult
from impala_common.run import metrics
from impala_common.run.checkpoints import Checkpoint, CheckpointStore
from impala_common.run.metrics import read_metrics
from impala_common.run.run_directory import RunDirectory
from impala_common.spec.specs import UnrollSpec
from impala_common.testing.unrolls import make_unrolls
from impala_server import IMPALA

STEPS = 2000
SMALL: dict[str, Any] = {
    "num_actors": 2,
    "envs_per_actor": 2,
    "num_steps": 10,
    "batch_size": 4,
    "num_storages": 8,
    "num_learners": 2,
    "feature_dim": 16,
    "hidden_dim": 12,
    "quiet": True,
}


def make_scaled() -> gymnasium.Env[Any, Any]:
    """Returns CartPole with rewards of 10."""
    return gymnasium.wrappers.TransformReward(gymnasium.make("CartPole-v1"), lambda r: 10 * r)


def make_agent(env: object = "CartPole-v1", **arguments: Any) -> IMPALA:
    """Returns an agent that is not to be trained."""
    return IMPALA(env, **(SMALL | arguments))


def make_batch(agent: IMPALA, seed: int = 0, num_steps: int = 6, size: int = 5) -> dict[str, Any]:
    """Returns random unrolls of the agent's environment without ends, a batch of `size`."""
    state = agent._frozen().state
    spec = UnrollSpec(num_steps, state.environment, state.model.agent_state_specs())
    batch: dict[str, Any] = dict(make_unrolls(spec, size, seed))
    for name in ("terminated", "truncated", "is_padding", "is_first"):
        batch[name] = np.zeros_like(batch[name])
    return batch


def update_once(batch_seed: int = 0, **arguments: Any) -> dict[str, Any]:
    """Returns the metrics of the first update of a new agent."""
    agent = make_agent(**arguments)
    return agent.update(make_batch(agent, batch_seed))


def weights_of(agent: IMPALA) -> dict[str, np.ndarray]:
    """Returns a copy of the network's tensors."""
    return {name: t.detach().cpu().numpy().copy() for name, t in agent.network.state_dict().items()}


def are_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two networks are the same, bit for bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


class Trained:
    """An agent after `train`, and what was seen of it."""

    def __init__(self, path: Path) -> None:
        self.run = RunDirectory(path / "run")
        self.cwd = os.getcwd()
        self.agent = IMPALA(
            "CartPole-v1",
            make_scaled,
            "my tag",
            7,
            run_dir=self.run.path,
            config={"checkpoint": {"keep_checkpoints": 100}},
            **SMALL,
        )
        self.initial_weights = weights_of(self.agent)
        self.result: TrainResult = self.agent.train(
            STEPS, log_interval=0.2, eval_interval=0, save_interval=500
        )

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Returns the run's checkpoints, oldest first."""
        store = CheckpointStore(self.run.checkpoints_path)
        return [store.load(name) for name in store.names()]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Returns the run's metrics."""
        return [line for line in read_metrics(self.run.metrics_path) if metrics.UPDATES in line]


def make_images() -> gymnasium.Env[Any, Any]:
    """Returns an environment of small images."""
    return SpacesEnv(spaces.Box(0, 255, (16, 16, 3), np.uint8), spaces.Discrete(3))


class SpacesEnv(gymnasium.Env[Any, Any]):
    """Samples observations of any space; ends never."""

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, False, False, {}
