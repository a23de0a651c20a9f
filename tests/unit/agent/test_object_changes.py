"""Changes of environment objects are found, whatever was changed; episodes are no changes."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest

from impala_actor.environments import factory
from impala_agent.environments import make_source
from impala_agent.object_changes import find_change
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import ConfigError

CONFIG = EnvironmentConfig()


def set_goal(env: Any) -> None:
    env.unwrapped.goal_velocity = 0.05


def set_limit(env: Any) -> None:
    env._max_episode_steps = 7


def set_new(env: Any) -> None:
    env.unwrapped.bonus = {"a": [1, np.ones(2)]}


def set_method(env: Any) -> None:
    env.unwrapped.step = lambda action: None


def set_space(env: Any) -> None:
    env.unwrapped.action_space = gymnasium.spaces.Box(-0.5, 0.5, (1,), np.float32)


@pytest.mark.parametrize("change", [set_goal, set_limit, set_new, set_method, set_space])
@pytest.mark.parametrize("is_used", [False, True])
def test_change_is_found(change: Any, is_used: bool) -> None:
    env = gymnasium.make("MountainCarContinuous-v0")
    if is_used:
        env.reset(seed=3)
        env.step(env.action_space.sample())
    change(env)

    assert find_change(env, gymnasium.make("MountainCarContinuous-v0")) is not None


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Taxi-v4", "FrozenLake-v1"])
def test_episodes_are_no_changes(env_id: str) -> None:
    env = gymnasium.make(env_id)
    assert find_change(env, gymnasium.make(env_id)) is None
    env.reset(seed=3)
    for _ in range(5):
        env.step(env.action_space.sample())
        env.reset()
    assert find_change(env, gymnasium.make(env_id)) is None
    assert make_source("env", env, CONFIG).name == env_id


def test_changed_environment_is_trained_on_as_it_is() -> None:
    """Planted: made anew by its spec."""
    env = gymnasium.make("MountainCarContinuous-v0")
    set_goal(env)

    source = make_source("env", env, CONFIG)

    made: Any = factory._makers[source.name]()
    assert made.unwrapped.goal_velocity == 0.05
    assert made is not env


def test_changed_environment_that_cannot_be_copied_is_refused() -> None:
    env = gymnasium.make("MountainCarContinuous-v0")
    env.unwrapped.handle = (number for number in range(3))  # type: ignore[attr-defined]

    with pytest.raises(ConfigError, match=r"handle was changed.*Pass a factory"):
        make_source("env", env, CONFIG)


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_changed_vector_environment_is_refused(mode: Any) -> None:
    vector: Any = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode=mode)
    assert make_source("env", vector, CONFIG).num_slots == 2
    part = vector.envs[1].unwrapped if mode == "sync" else vector
    part.length = copy.deepcopy(part.length) * 2

    with pytest.raises(ConfigError, match=r"length was changed.*Pass a factory"):
        make_source("env", vector, CONFIG)
