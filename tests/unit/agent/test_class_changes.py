"""Changes on the class of an environment, or in its module, are noticed; its own are not."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from impala_agent.class_changes import find_class_changes
from impala_agent.environments import make_source
from impala_common.config.sections import EnvironmentConfig

SOURCE = """
import gymnasium
import numpy as np

GOAL = 0.5
SIZES = (3, 4)
CACHE = []
num_made = 0
_total = 0


def helper():
    return GOAL


class Corridor(gymnasium.Env):
    length: int = 6
    metadata = {"render_modes": []}
    made = 0
    low, high = 0, 1
    if True:
        sign = 1

    def __init__(self):
        global num_made
        num_made += 1
        Corridor.made += 1
        self.length = 6
        self.observation_space = gymnasium.spaces.Box(0, 9, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        CACHE.append(1)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t >= self.length, False, {}

    @property
    def goal(self):
        return GOAL
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    (tmp_path / "corridor_of_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("corridor_of_test")
    del sys.modules["corridor_of_test"]


def change_attribute(module: Any) -> None:
    module.Corridor.length = 9


def change_method(module: Any) -> None:
    module.Corridor.step = lambda self, action: None


def change_global(module: Any) -> None:
    module.GOAL = 0.05


def change_tuple(module: Any) -> None:
    module.SIZES = (3, 5)


def change_function(module: Any) -> None:
    module.helper = lambda: 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (change_attribute, "Corridor.length"),
        (change_method, "Corridor.step"),
        (change_global, "corridor_of_test.GOAL"),
        (change_tuple, "corridor_of_test.SIZES"),
        (change_function, "corridor_of_test.helper"),
    ],
)
def test_change_on_class_or_module_is_found(
    module: types.ModuleType, change: Any, name: str
) -> None:
    env = gymnasium.wrappers.TimeLimit(module.Corridor(), 9)
    change(module)

    assert list(find_class_changes(env)) == [name]


def test_what_an_environment_changes_by_itself_is_no_change(module: types.ModuleType) -> None:
    env = module.Corridor()
    env.reset()
    module.Corridor()

    assert list(find_class_changes(env)) == []


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "MountainCarContinuous-v0", "Taxi-v4", "ALE/Pong-v5", "Ant-v5"]
)
def test_known_environments_are_as_their_source_says(env_id: str) -> None:
    if env_id.startswith("ALE/"):
        import ale_py

        gymnasium.register_envs(ale_py)
    env = gymnasium.make(env_id)
    env.reset(seed=1)

    assert list(find_class_changes(env)) == []
    env.close()


def test_changed_class_is_warned_of_with_the_way_round(module: types.ModuleType) -> None:
    """Before: nothing was said, and actors played the class as its source says."""
    env = module.Corridor()
    module.Corridor.length = 9

    with pytest.warns(UserWarning, match=r"env: Corridor\.length was changed.*pass a factory"):
        make_source("env", env, EnvironmentConfig())
    module.Corridor.length = 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_source("env", module.Corridor(), EnvironmentConfig())
