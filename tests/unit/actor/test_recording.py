"""Recordings show the episode that was played, whole and in order, and stay within their bounds.

The environment paints the time into its pictures, so that each can be told. Seen to fail with:
the picture taken before the step, the picture of the reset row counted to the ended episode, the
policy not told of the reset row (its memory then starts late), a stride that is not doubled, a
second emulator with another seed, the run's arguments for its environment dropped.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from numpy.typing import NDArray

from impala_actor.environments.factory import make_environment
from impala_actor.environments.rendering import make_rendered_environment
from impala_actor.video.recording import FrameBuffer, record_episodes, shrink
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import ConfigError, ImpalaError
from impala_common.testing.environments import CountingEnv

DRAWN = "DrawnCounting-v0"
LENGTH = 7


class DrawnCountingEnv(CountingEnv):
    """Its picture is the time in every pixel of the first channel, the episode in the second."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None, episode_length: int = LENGTH) -> None:
        super().__init__(episode_length)
        self.render_mode = render_mode

    def render(self) -> NDArray[np.uint8]:
        picture = np.zeros((4, 6, 3), np.uint8)
        picture[:] = (self._t, self._episode, 9)
        return picture


class BlindEnv(CountingEnv):
    """Has render modes, but draws nothing."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode


@pytest.fixture(autouse=True)
def _registered() -> Any:
    gymnasium.register(DRAWN, DrawnCountingEnv)
    gymnasium.register("Blind-v0", BlindEnv)
    yield
    for env_id in (DRAWN, "Blind-v0"):
        del gymnasium.registry[env_id]


class TwiceAsLongEnv(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Makes episodes of an environment longer, as a wrapper that is named by a setting."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        env.unwrapped.episode_length *= 2


class DrawnVectorEnv(CartPoleVectorEnv):
    """For an id that has no single environment."""


class FakeStep(NamedTuple):
    actions: NDArray[np.int64]


class RememberingPolicy:
    """Its memory counts steps since the last first row; the observation must say the same."""

    def __init__(self, num_actions: int = 5) -> None:
        self.memory = 99
        self.greedy: set[bool] = set()
        self.random = np.random.default_rng(0)
        self.num_actions = num_actions
        self.checks = num_actions == 5

    def act(
        self, observations: dict[str, Any], is_first: NDArray[np.bool_], is_greedy: bool = False
    ) -> FakeStep:
        self.greedy.add(is_greedy)
        self.memory = 0 if is_first[0] else self.memory + 1
        if self.checks:
            assert self.memory == observations["observation"][0, 0]
        return FakeStep(self.random.integers(self.num_actions, size=1))

    def observe(self, unused_rewards: Any, unused_is_first: Any) -> None:
        """Nothing to note."""


@pytest.mark.parametrize("is_greedy", [False, True])
def test_record_episodes_shows_each_episode_from_reset_to_end(is_greedy: bool) -> None:
    policy = RememberingPolicy()

    recordings = record_episodes(
        policy, DRAWN, EnvironmentConfig(), num_episodes=3, seed=1, is_greedy=is_greedy
    )

    assert policy.greedy == {is_greedy}
    assert len(recordings) == 3
    for index, recording in enumerate(recordings):
        assert recording.frames[:, 0, 0, 0].tolist() == list(range(LENGTH + 1))
        # Episode 0 is the reset that looks for masks of legal actions in infos.
        assert set(recording.frames[:, 0, 0, 1].tolist()) == {index + 1}
        assert recording.frames.shape == (LENGTH + 1, 4, 6, 3)
        assert (recording.frames_per_s, recording.num_steps) == (20.0, LENGTH)
        assert recording.episode_return == 10.0 * LENGTH * (LENGTH + 1) / 2
        assert not recording.is_cut


def test_record_episodes_with_endless_episode_cuts_and_stops() -> None:
    recordings = record_episodes(
        RememberingPolicy(), DRAWN, EnvironmentConfig(), num_episodes=3, seed=1, max_steps=4
    )

    (recording,) = recordings
    assert recording.is_cut
    assert recording.num_steps == 4
    assert recording.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_record_episodes_keeps_arguments_and_wrappers_of_the_run() -> None:
    config = EnvironmentConfig(
        env_kwargs='{"episode_length": 3}', env_wrapper=(f"{__name__}:TwiceAsLongEnv",)
    )

    (recording,) = record_episodes(RememberingPolicy(), DRAWN, config, num_episodes=1, seed=1)

    assert recording.frames[:, 0, 0, 0].tolist() == list(range(7))


def test_record_episodes_of_vector_only_environment_shows_its_slot() -> None:
    gymnasium.register("OnlyVector-v0", vector_entry_point=DrawnVectorEnv, max_episode_steps=5)
    try:
        (recording,) = record_episodes(
            RememberingPolicy(2), "OnlyVector-v0", EnvironmentConfig(), num_episodes=1, seed=1
        )
    finally:
        del gymnasium.registry["OnlyVector-v0"]

    assert recording.num_steps == 5
    assert recording.frames.shape == (6, 200, 300, 3)


@pytest.mark.parametrize("max_frames", [8, 9, 5])
def test_frame_buffer_when_full_thins_evenly_and_keeps_the_speed(max_frames: int) -> None:
    buffer = FrameBuffer(30.0, max_frames=max_frames, max_side=4)

    for time in range(200):
        buffer.take(np.full((2, 2, 3), time, np.uint8))

    times = buffer.stack()[:, 0, 0, 0].astype(int)
    assert max_frames / 2 <= len(times) <= max_frames
    assert times[0] == 0
    (stride,) = set(np.diff(times))
    assert times[-1] >= 199 - stride
    assert buffer.frames_per_s == 30.0 / stride


def test_shrink_takes_means_of_blocks() -> None:
    frame = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)

    small = shrink(frame, 3)

    assert small.shape == (2, 3, 3)
    np.testing.assert_allclose(small[0, 0], frame[:2, :2].mean(axis=(0, 1)), atol=0.5)
    assert shrink(frame, 6) is not frame
    np.testing.assert_array_equal(shrink(frame, 6), frame)
    assert shrink(np.zeros((1, 900, 3), np.uint8), 300).shape == (1, 300, 3)


@pytest.mark.parametrize(
    "env_id", ["Blind-v0", "impala_common.testing.environments:ContextualBandit-v0"]
)
def test_rendered_environment_that_draws_nothing_is_refused_with_the_way_round(
    env_id: str,
) -> None:
    with pytest.raises(ImpalaError) as caught:
        record_episodes(RememberingPolicy(4), env_id, EnvironmentConfig(), num_episodes=1, seed=0)

    assert isinstance(caught.value, ConfigError)
    assert env_id in str(caught.value)
    assert "--env" in str(caught.value)
    assert "render()" in str(caught.value)


class OtherPixels(DrawnCountingEnv):
    """Paints with pixels of the type and value that `pixel` has."""

    pixel: ClassVar[Any] = None

    def render(self) -> Any:
        return np.full((4, 6, 3), self.pixel)


@pytest.mark.parametrize(
    ("pixel", "found"),
    [
        (0.5, "float64 from 0.5 to 0.5"),
        (256, "int64 from 256 to 256"),
        (np.int16(-1), "int16 from -1"),
        (np.nan, "float64 from nan"),
    ],
)
def test_picture_of_other_pixels_is_refused(
    pixel: Any, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the cast alone: pixels of .5 were filmed as black."""
    monkeypatch.setattr(OtherPixels, "pixel", pixel)
    monkeypatch.setattr(gymnasium.registry[DRAWN], "entry_point", OtherPixels)
    environment = make_rendered_environment(DRAWN, EnvironmentConfig())
    environment.start(0)

    with pytest.raises(ConfigError, match=f"its render.. gave {found}.*not uint8 from 0 to 255"):
        environment.render()
    monkeypatch.setattr(OtherPixels, "pixel", 255)  # an integer of another type, but a pixel
    picture = environment.render()
    assert (picture.dtype.name, picture.min()) == ("uint8", 255)


def test_rendered_minatar_paints_each_thing() -> None:
    pytest.importorskip("minatar")
    environment = make_rendered_environment("MinAtar/Breakout-v1", EnvironmentConfig())
    environment.start(3)
    for _ in range(2):  # until ball and trail part
        state = environment.step(np.zeros(1, np.int64)).observations["observation"][0]

    picture = environment.render()

    assert picture.shape == (320, 320, 3)
    np.testing.assert_array_equal(picture[16::32, 16::32].any(axis=2), state.any(axis=2))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) >= 4  # black, paddle, bricks, trail


def test_rendered_atari_shows_policy_what_training_showed_and_the_screen_in_colour() -> None:
    pytest.importorskip("ale_py")
    config = EnvironmentConfig(env="ALE/Pong-v5", atari_episodic_life=True)
    rendered = make_rendered_environment("ALE/Pong-v5", config)
    whole_games = dataclasses.replace(config, atari_episodic_life=False)
    plain = make_environment("ALE/Pong-v5", 1, whole_games)
    random = np.random.default_rng(0)

    pairs = [(rendered.start(5), plain.reset(5))]
    pictures = [rendered.render()]
    for _ in range(60):
        actions = random.integers(6, size=1)
        pairs.append((rendered.step(actions).observations, plain.step(actions).observations))
        pictures.append(rendered.render())
    rendered.close()
    plain.close()

    for seen, trained_on in pairs:
        np.testing.assert_array_equal(seen["observation"], trained_on["observation"])
    assert pictures[-1].shape == (210, 160, 3)
    assert tuple(pictures[-1][150, 80]) == (144, 72, 17)  # Pong's brown
    assert any((pictures[0] != picture).any() for picture in pictures)
    assert rendered.frames_per_s == 15.0
