"""Environments that fail, as `--env faulty_environments:Raising-v0` finds them in tests."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from impala_common.testing.environments import ContextualBanditEnv, CountingEnv, Info, Observation

released = threading.Event()
"""Set by a test that ends a hang."""


class RaisingBandit(ContextualBanditEnv):
    """The contextual bandit, but in one step of a hundred it raises."""

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        if self.np_random.random() < 0.01:
            raise ConnectionResetError("the simulator went away")
        return super().step(action)


class NonFiniteBandit(ContextualBanditEnv):
    """In one step of a thousand an observation or a reward is not finite."""

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        observation, reward, terminated, truncated, info = super().step(action)
        chance = self.np_random.random()
        if chance < 0.0005:
            observation = np.full_like(observation, np.nan)
        elif chance < 0.001:
            reward = float("inf")
        return observation, reward, terminated, truncated, info


class Drawn(CountingEnv):
    """Counts, and draws a black picture."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.render_mode = render_mode

    def render(self) -> np.ndarray[Any, Any]:
        return np.zeros((4, 4, 3), np.uint8)


class Hanging(Drawn):
    """Never returns from its hundredth step, unless another has hung before it."""

    def __init__(self, marker: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        self._marker = Path(marker)
        self._num_steps = 0

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        self._num_steps += 1
        if self._num_steps == 100 and not self._marker.exists():
            self._marker.touch()
            released.wait()
        return super().step(action)


for _name, _kind in (
    ("Raising-v0", RaisingBandit),
    ("NonFinite-v0", NonFiniteBandit),
    ("Drawn-v0", Drawn),
    ("Hanging-v0", Hanging),
):
    gymnasium.register(_name, entry_point=_kind)
