"""Small environments with a known best policy, for tests.

Made through Gymnasium ids of the form "impala_common.testing.environments:Bait-v0";
importing this module registers them. Each is a few lines of plain Python, small enough to check by
hand, and reveals one family of mistakes.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Observation = NDArray[np.float32]
Info = dict[str, Any]  # Any: Gymnasium's type


class TinyEnv(gymnasium.Env[Observation, np.int64], abc.ABC):
    """Base: float32 vector observations, discrete actions, seeding."""

    def __init__(self, observation_width: int, num_actions: int, action_start: int = 0) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (observation_width,), dtype=np.float32)
        self.action_space = spaces.Discrete(num_actions, start=action_start)

    def reset(
        self, *, seed: int | None = None, options: Info | None = None
    ) -> tuple[Observation, Info]:
        """Starts an episode."""
        super().reset(seed=seed, options=options)
        return self._start(), {}

    @abc.abstractmethod
    def _start(self) -> Observation:
        """Returns the first observation of an episode."""


class CountingEnv(TinyEnv):
    """Every observation and reward encodes its index.

    The observation is (t, episode, last action), t counting from 0 at each reset,
    episode from 0 since construction, and last action -1 after a reset. The step
    that leads to observation t has reward 10 x t. Ends at t == episode_length,
    where it is truncated, or terminated if `is_terminated`.
    """

    def __init__(
        self, episode_length: int = 4, is_terminated: bool = False, action_start: int = 0
    ) -> None:
        super().__init__(3, 5, action_start)
        self.episode_length = episode_length
        self.is_terminated = is_terminated
        self._t = 0
        self._episode = -1

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        """Counts on."""
        assert self.action_space.contains(action)
        assert self._t < self.episode_length, "stepped after the end"
        self._t += 1
        is_over = self._t == self.episode_length
        is_terminated = is_over and self.is_terminated
        observation = self._observe(int(action))
        return observation, 10.0 * self._t, is_terminated, is_over and not is_terminated, {}

    def _start(self) -> Observation:
        self._t = 0
        self._episode += 1
        return self._observe(-1)

    def _observe(self, last_action: int) -> Observation:
        return np.array([self._t, self._episode, last_action], np.float32)


class ContextualBanditEnv(TinyEnv):
    """One step: reward 1 if the action equals the context shown, else 0.

    The context is one-hot of 4. Rewards or actions that are a row off turn the
    mean return from 1 into chance (.25) at once. The final observation shows one more
    random context, whose row is padding.
    """

    def __init__(self) -> None:
        super().__init__(4, 4)
        self._context = 0

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        """Judges the action; always the end."""
        reward = float(action == self._context)
        return self._start(), reward, True, False, {}

    def _start(self) -> Observation:
        self._context = int(self.np_random.integers(4))
        observation = np.zeros(4, np.float32)
        observation[self._context] = 1.0
        return observation


class ConstantRewardEnv(TinyEnv):
    """One state, reward 1, truncated every 5 steps: the value is 1 / (1 - discount).

    With discount .9 that is 10; a learner that takes truncation for termination
    ends up at about 2.7.
    """

    def __init__(self, episode_length: int = 5) -> None:
        super().__init__(1, 2)
        self._episode_length = episode_length
        self._t = 0

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        """Pays 1."""
        self._t += 1
        return np.ones(1, np.float32), 1.0, False, self._t >= self._episode_length, {}

    def _start(self) -> Observation:
        self._t = 0
        return np.ones(1, np.float32)


class BaitEnv(TinyEnv):
    """A trap: ending the episode early pays only for a learner that trains on padding rows.

    Two observations: start (1, 0) and body (0, 1). At the start, action 1 pays 1 and
    action 0 nothing. In the body, action 0 (stay) pays .1, and action 1 (leave) pays
    nothing and truncates; staying is truncated after `episode_length` steps.
    A truncated episode goes on in value, so with discount .9 the body is worth
    .1 / (1 - .9) = 1, leaving costs .1, and it is right to stay. What different
    learners end up with, as mean return of an episode of 10 steps:

    - right: 1 at the start, then stay: `BEST_RETURN` = 1.9, values 1.9 and 1.0.
    - padding rows trained on, a truncated episode continued into the next
      observation, or the first real row masked in place of the padding row: leaving
      leads to the next start two steps later, so it leaves at once: return 1.0,
      values 3.7 and 3.1.
    """

    BEST_RETURN = 1.9

    def __init__(self, episode_length: int = 10) -> None:
        super().__init__(2, 2)
        self._episode_length = episode_length
        self._t = 0

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        """Pays at the start, then for staying."""
        is_start = self._t == 0
        self._t += 1
        reward = float(action == 1) if is_start else 0.1 * float(action == 0)
        has_left = not is_start and bool(action == 1)
        is_truncated = has_left or self._t >= self._episode_length
        return np.array([0.0, 1.0], np.float32), reward, False, is_truncated, {}

    def _start(self) -> Observation:
        self._t = 0
        return np.array([1.0, 0.0], np.float32)


class RepeatCueEnv(TinyEnv):
    """Memory: a cue is shown, `delay` steps later it is asked for.

    The observation is the one-hot cue (zeros when none is shown) and a flag that is 1
    at a question. Naming the cue at a question pays 1; all other actions do
    nothing. After a question up to `max_gap` empty steps pass before the next cue, so
    cues and questions drift along the edges of unrolls of any length. An
    episode terminates after `num_questions` questions, its best return; without
    memory `num_questions` / `num_cues` is what can be had.
    """

    def __init__(
        self, delay: int = 4, num_cues: int = 2, num_questions: int = 10, max_gap: int = 2
    ) -> None:
        assert delay >= 1
        super().__init__(num_cues + 1, num_cues)
        self._delay = delay
        self._num_cues = num_cues
        self._num_questions = num_questions
        self._max_gap = max_gap
        self._questions_asked = 0
        self._cue = 0
        self._steps_to_cue = 0
        self._steps_to_question = 0

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        """Judges the action if this is a question, then moves on."""
        reward = 0.0
        if self._steps_to_question == 0:
            reward = float(action == self._cue)
            self._questions_asked += 1
            self._plan_cue()
        else:
            self._steps_to_cue -= 1
            self._steps_to_question -= 1
        is_over = self._questions_asked == self._num_questions
        return self._observe(), reward, is_over, False, {}

    def _start(self) -> Observation:
        self._questions_asked = 0
        self._plan_cue()
        return self._observe()

    def _plan_cue(self) -> None:
        self._cue = int(self.np_random.integers(self._num_cues))
        self._steps_to_cue = int(self.np_random.integers(self._max_gap + 1))
        self._steps_to_question = self._steps_to_cue + self._delay

    def _observe(self) -> Observation:
        observation = np.zeros(self._num_cues + 1, np.float32)
        if self._steps_to_cue == 0:
            observation[self._cue] = 1.0
        if self._steps_to_question == 0:
            observation[-1] = 1.0
        return observation


class PositionCartPole(gymnasium.ObservationWrapper[Observation, np.int64, Observation]):
    """Memory: CartPole-v1 without its velocities, 500 steps at most.

    The observation is (x / 2.4, theta / 0.2095): each in [-1, 1] until the episode
    ends. Velocities have to be remembered as the change since the last step; a
    policy that does not gets some 50 of the 500 steps.
    """

    SCALE = np.array([2.4, 12 * 2 * np.pi / 360], np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(gymnasium.make("CartPole-v1", render_mode=render_mode))
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32)

    def observation(self, observation: Observation) -> Observation:
        """Leaves position and angle, scaled."""
        return observation[[0, 2]] / self.SCALE


_REGISTERED: dict[str, tuple[Callable[..., gymnasium.Env[Any, Any]], dict[str, int]]] = {
    "Counting-v0": (CountingEnv, {}),
    "ContextualBandit-v0": (ContextualBanditEnv, {}),
    "ConstantReward-v0": (ConstantRewardEnv, {}),
    "Bait-v0": (BaitEnv, {}),
    "RepeatCue-v0": (RepeatCueEnv, {}),
    "RepeatCueLong-v0": (RepeatCueEnv, {"delay": 10, "num_cues": 4}),
    "PositionCartPole-v1": (PositionCartPole, {}),
}


def register() -> None:
    """Registers the environments with Gymnasium; repeated calls have no effect."""
    for env_id, (entry_point, kwargs) in _REGISTERED.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point, kwargs=dict(kwargs))


register()
