"""MaskedBandit: a canary of action masks, with a known answer."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from impala_common.testing.environments import ContextualBanditEnv


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
