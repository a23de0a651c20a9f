"""Habits of environments that are allowed, and must change nothing of what is trained."""

from __future__ import annotations

import types
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from impala_actor.environments.ale import parse_game_id
from impala_actor.environments.slot_guard import SlotGuard
from impala_actor.environments.slots import adapt, make_slots
from impala_common.config.presets import preset_for_environment
from impala_common.errors import ImpalaError, UnknownEnvironmentError


class Habits(VectorEnv[Any, Any, Any]):
    """Two slots that end at their third step, with arrays of their own for everything."""

    def __init__(self) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.num_envs = 2
        self.single_observation_space = spaces.Box(0, 99, (2, 3), np.float32)
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, 2)
        self.action_space = batch_space(self.single_action_space, 2)
        self.t = np.zeros(2)
        self.rewards = np.zeros(2, np.float32)
        self.terminated, self.truncated = np.zeros(2, np.bool_), np.zeros(2, np.bool_)
        self.frames = np.zeros((2, 2, 3), np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        chosen = (options or {}).get("reset_mask", np.ones(2, np.bool_))
        for array in (self.t, self.rewards, self.terminated, self.truncated):
            array[chosen] = 0
        return self.frames[..., ::-1], {}

    def step(self, actions: Any) -> Any:
        actions -= 1  # 0, 1, 2 are moves of -1, 0, 1
        self.t += 1
        self.rewards[:] = self.t
        self.terminated[:] = self.t == 3
        return self.frames[..., ::-1], self.rewards, self.terminated, self.truncated, {}


def test_reset_that_clears_the_arrays_of_the_last_step_erases_no_end() -> None:
    """Seen to fail: final rewards and flags were those after the reset."""
    environment = adapt(Habits())
    environment.reset(0)

    steps = [environment.step(np.ones(2, np.int64)) for _ in range(3)]

    assert steps[2].rewards.tolist() == [3.0, 3.0]
    assert steps[2].terminated.tolist() == [True, True]


def test_environment_may_write_into_its_actions() -> None:
    """Seen to fail: the policy's own actions changed, and with them what was trained."""
    environment = adapt(Habits())
    environment.reset(0)
    actions = np.array([0, 2])

    environment.step(actions)

    assert actions.tolist() == [0, 2]


def test_observations_may_be_mirrored_views() -> None:
    """Seen to fail: torch takes no negative strides."""
    environment = adapt(Habits())

    observations = [environment.reset(0), environment.step(np.ones(2, np.int64)).observations]

    for one in observations:
        assert torch.from_numpy(one["observation"]).shape == (2, 2, 3)


class Plain(gymnasium.Env[Any, Any]):
    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)
    info: Any = None

    def reset(self, **unused: Any) -> Any:
        return np.zeros(1, np.float32), self.info

    def step(self, action: Any) -> Any:
        _x, _y = (1, 2, 3)  # its own mistake
        raise AssertionError("unreachable")


class Mistaken(Plain):
    def reset(self, **unused: Any) -> Any:
        return dict(**{"a": 1}, b=self._make(foo=2))

    def _make(self) -> int:
        return 1


class OldUnpacking(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper of old Gym's, around an environment of today's."""

    def step(self, action: Any) -> Any:
        _a, _b, _c, _d = (1, 2, 3, 4, 5)
        raise AssertionError("unreachable")


def guard(env: gymnasium.Env[Any, Any]) -> SlotGuard:
    return SlotGuard(env, "Plain-v0", checks_every_step=False, looks_for_masks=False)


@pytest.mark.parametrize("info", [None, types.MappingProxyType({"a": 1})])
def test_reset_may_return_any_mapping_or_none_as_info(info: Any) -> None:
    """Seen to fail: refused as an environment of old Gym."""
    env = Plain()
    env.info = info

    assert guard(env).reset(seed=1)[1] == {}


def test_mistake_of_the_environment_is_no_sign_of_old_gym() -> None:
    """Seen to fail: such errors ended the run with 78, with advice that does not help."""
    with pytest.raises(ValueError, match="too many values to unpack"):
        guard(Plain()).step(0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        guard(Mistaken()).reset(seed=1)
    with pytest.raises(UnknownEnvironmentError, match="step failed with ValueError"):
        guard(OldUnpacking(Plain())).step(0)


class ClosesBadly(Plain):
    """Its layout is unusable, and it cannot be closed."""

    metadata: dict[str, Any] = {"image_layout": "sideways"}  # noqa: RUF012

    def close(self) -> None:
        raise RuntimeError("cannot close")


def test_error_that_close_raises_hides_no_other() -> None:
    """Seen to fail: "cannot close" was all that was said."""
    with pytest.raises(ImpalaError, match="sideways"):
        make_slots("ClosesBadly-v0", ClosesBadly, 2, "sync", ())


@pytest.mark.parametrize("name", ["GridDeterministic-v0", "LineNoFrameskip-v4"])
def test_id_of_a_module_of_ones_own_is_no_atari_game(name: str) -> None:
    """Seen to fail: taken for Atari by its name."""
    assert preset_for_environment(f"my_envs:{name}") == "generic"
    assert parse_game_id(f"my_envs:{name}") is None
    assert preset_for_environment(name) == "atari"
