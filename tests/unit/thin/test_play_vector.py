"""play_vector with Gymnasium's own vector environments, and a client that needs no server."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from impala_rl.v1 import tensor_pb2
from impala_thin import Environment, EpisodeLostError, RefusedError, cli
from impala_thin.gymnasium_driver import make_vector, play_vector, read_masks

NUM_SLOTS = 2


class LeftPushes:
    """Always chooses action 0; has forgotten all slots once."""

    def __init__(self, lost_at: int = -1, *, has_mask: bool = False) -> None:
        self.num_slots = NUM_SLOTS
        self.environment = Environment.simple((4,), num_actions=2, has_mask=has_mask)
        self._calls = iter(range(10_000))
        self._lost_at = lost_at

    def act(self, given: Any) -> Any:
        if next(self._calls) == self._lost_at:
            raise EpisodeLostError(list(given.slots))
        return self

    @property
    def values(self) -> Any:
        return np.zeros(self.num_slots, np.int64)

    def settle(self) -> None:
        pass


class Tile(gymnasium.Env[Any, Any]):
    """A picture of few rows, whose channels are first, as it declares."""

    metadata = {"image_layout": "CHW", "render_modes": []}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 8), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros((8, 8, 8), np.uint8), {}


class StaysEnded(gymnasium.vector.VectorWrapper):
    """A class that has to be reset by its caller: an end is an end until then."""

    def step(self, actions: Any) -> Any:
        observation, rewards, _, truncated, infos = self.env.step(actions)
        terminated = np.abs(observation[:, 2]) > 0.2
        self.env.unwrapped._autoreset_envs[:] = False
        return observation, rewards, terminated, truncated, infos


def make_vector_env(mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> Any:
    makers = [lambda: gymnasium.make("CartPole-v1")] * NUM_SLOTS
    return SyncVectorEnv(makers, autoreset_mode=mode)


def play(client: Any, mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> Any:
    return play_vector(make_vector_env(mode), client, num_episodes=4, seed=1)


def test_returns_are_those_of_whole_episodes_after_lost_ones() -> None:
    """Pushes to one side end within 11 steps. Seen to fail: 16 and 17, with the lost steps."""
    assert max(play(LeftPushes()).returns) <= 11.0
    assert max(play(LeftPushes(lost_at=7)).returns) <= 11.0


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_mode_is_refused_by_name(mode: AutoresetMode) -> None:
    """Seen to fail: SAME_STEP was played, with first observations taken for final ones."""
    with pytest.raises(RefusedError, match=f"autoreset_mode {mode.value}: expected NEXT_STEP"):
        play(LeftPushes(), mode)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_mode_that_is_not_declared_is_found_at_the_first_ends(mode: AutoresetMode) -> None:
    """Before: played as NEXT_STEP, and steps of episodes were taken for resets."""
    vector_env = make_vector_env(mode)
    vector_env.metadata = {}
    if mode is AutoresetMode.DISABLED:
        vector_env = StaysEnded(vector_env)

    found = "final observations" if mode is AutoresetMode.SAME_STEP else "in the step after an end"
    with pytest.raises(RefusedError, match=found):
        play_vector(vector_env, LeftPushes(), num_episodes=9, seed=1)  # type: ignore[arg-type]


def test_mask_of_another_width_is_refused_by_name() -> None:
    infos = {"action_mask": np.ones((NUM_SLOTS, 3), np.int8)}
    with pytest.raises(RefusedError, match="of slot 0: expected 2 flags"):
        read_masks(LeftPushes(has_mask=True), infos)  # type: ignore[arg-type]


def test_mask_of_logits_is_refused_and_not_turned_round() -> None:
    """Seen to fail: 0 and -inf became illegal and legal."""
    infos = {"action_mask": np.array([[0.0, -np.inf]] * NUM_SLOTS)}
    with pytest.raises(RefusedError, match="of slot 0: expected each 0"):
        read_masks(LeftPushes(has_mask=True), infos)  # type: ignore[arg-type]


def test_frame_stack_of_several_parts_is_refused_by_name() -> None:
    space = gymnasium.spaces.Dict(
        a=gymnasium.spaces.Box(-1.0, 1.0, (2,)), b=gymnasium.spaces.Discrete(3)
    )
    with pytest.raises(RefusedError, match=r"got observation/a, observation/b"):
        Environment.from_spaces(space, gymnasium.spaces.Discrete(2), frame_stack=4)


def test_command_says_the_image_layout_that_the_environment_declares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen to fail: what the shape suggests was said, IMAGE_HWC."""
    gymnasium.register("Tile-v0", entry_point=Tile)
    said: list[Environment] = []

    def refuse(environment: Environment, *_unused: Any, **_settings: Any) -> None:
        said.append(environment)
        raise RefusedError("no server here")

    monkeypatch.setattr(cli, "SlotsClient", refuse)
    monkeypatch.setattr(cli, "_on_signals", lambda _stop: None)  # those of the tests stay
    try:
        assert cli.run(["--server", "127.0.0.1:1", "--env", "Tile-v0"]) == 78
    finally:
        gymnasium.registry.pop("Tile-v0")
    (leaf,) = said[0].spec.observation_leaves
    assert leaf.role == tensor_pb2.TENSOR_ROLE_IMAGE_CHW


class Paths(gymnasium.Env[Any, Any]):
    """Its infos have arrays of another length in each slot and at each step."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def _info(self) -> dict[str, Any]:
        return {"path": np.zeros(self.np_random.integers(1, 99)), "action_mask": np.ones(2, bool)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), self._info()

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 0.0, False, False, self._info()


def test_infos_that_no_array_holds_are_left_out_but_masks() -> None:
    """Seen to fail: ValueError, could not broadcast."""
    gymnasium.register("Paths-v0", entry_point=Paths)
    vector_env = make_vector("Paths-v0", 3, {})

    infos = [vector_env.reset(seed=1)[1], vector_env.step(np.zeros(3, np.int64))[-1]]

    for info in infos:
        assert info["action_mask"].shape == (3, 2)
        assert "path" not in info
