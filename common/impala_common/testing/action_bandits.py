"""One-step environments with composite actions and a known best action.

The context, one-hot of 2, selects one of two targets; the reward is the mean over all numbers of
the action of 1 for a hit, or 1 - ((a - target) / half range)^2 for a continuous one: 1 is the best.
A policy that ignores the context, or whose parts
share one log-probability wrongly, stays well below. Made through Gymnasium ids of the
form "impala_common.testing.action_bandits:BoxBandit-v0".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Info = dict[str, Any]  # Any: Gymnasium's type
Array = NDArray[Any]


class ActionBanditEnv(gymnasium.Env[Array, Any]):
    """Judges one action, which must be one of the action space in type and shape.

    Args:
      action_space: of supported spaces; Dict may be nested.
      targets: one action per context, of the same structure.
    """

    def __init__(self, action_space: spaces.Space[Any], targets: tuple[Any, Any]) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = action_space
        self._targets = targets
        self._context = 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Array, Info]:
        """Shows a context."""
        super().reset(seed=seed, options=options)
        return self._start(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, Info]:
        """Judges the action; always the end."""
        assert self.action_space.contains(action), f"{action} is not in {self.action_space}"
        scores = _score(self.action_space, action, self._targets[self._context])
        return self._start(), float(np.concatenate(scores).mean()), True, False, {}

    def _start(self) -> Array:
        self._context = int(self.np_random.integers(2))
        observation = np.zeros(2, np.float32)
        observation[self._context] = 1.0
        return observation


def _score(space: spaces.Space[Any], action: Any, target: Any) -> list[Array]:
    """Returns the score of every number of the action, an array for each leaf."""
    if isinstance(space, spaces.Dict):
        parts = [_score(child, action[key], target[key]) for key, child in space.items()]
        return [scores for part in parts for scores in part]
    if isinstance(space, spaces.Box):
        half_range = (space.high - space.low) / 2
        return [np.ravel(1.0 - ((action - target) / half_range) ** 2)]
    return [np.ravel(np.equal(action, target)).astype(np.float64)]


def make_multi_discrete_bandit() -> ActionBanditEnv:
    """Two rows of choices of different sizes, which start at different numbers."""
    space = spaces.MultiDiscrete(np.array([[3, 2], [4, 3]]), start=np.array([[0, 5], [-1, 0]]))
    return ActionBanditEnv(space, (np.array([[2, 5], [-1, 1]]), np.array([[0, 6], [2, 1]])))


def make_multi_binary_bandit() -> ActionBanditEnv:
    """Four flags."""
    return ActionBanditEnv(spaces.MultiBinary(4), (np.array([1, 0, 1, 1]), np.array([0, 0, 1, 0])))


def make_box_bandit() -> ActionBanditEnv:
    """Two numbers of different ranges; one target is a bound."""
    space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    return ActionBanditEnv(space, (np.array([-1.0, 10.0]), np.array([1.0, 4.0])))


def make_dict_bandit() -> ActionBanditEnv:
    """A number, a choice that starts at 5, and two flags."""
    hand = spaces.Dict({"mode": spaces.Discrete(3, start=5), "flags": spaces.MultiBinary(2)})
    space = spaces.Dict({"arm": spaces.Box(-1.0, 1.0, (1,), np.float64), "hand": hand})
    return ActionBanditEnv(
        space,
        (
            {"arm": 0.5, "hand": {"mode": 5, "flags": np.array([1, 0])}},
            {"arm": -0.5, "hand": {"mode": 7, "flags": np.array([1, 1])}},
        ),
    )


_REGISTERED: dict[str, Callable[..., ActionBanditEnv]] = {
    "MultiDiscreteBandit-v0": make_multi_discrete_bandit,
    "MultiBinaryBandit-v0": make_multi_binary_bandit,
    "BoxBandit-v0": make_box_bandit,
    "DictBandit-v0": make_dict_bandit,
}


def register() -> None:
    """Registers the environments with Gymnasium; repeated calls have no effect."""
    for env_id, entry_point in _REGISTERED.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point)


register()
