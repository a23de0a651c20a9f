"""Atari through ale-py's own vector environment: preprocessing and stepping in C++.

All of its options are set here and no default is used: its reward clipping is on by default, but
actors report raw rewards. Ids are those that ale-py registers: ALE/Pong-v5 (sticky actions .25),
Pong-v4, PongNoFrameskip-v4 (none); the frame skip is always that of the settings. Observations are
uint8
[stack, 84, 84], oldest frame first; after a reset the older frames are zeros.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import (
    EnvironmentAdapter,
    StepResult,
    VectorEnvironment,
)
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import MissingExtraError, UnknownEnvironmentError

EXTRA = "atari"
_NAMESPACE = "ALE/"
_LEGACY_ID = re.compile(r"[A-Za-z0-9]+-v[04]")
_ENTRY_POINT = "ale_py.env:AtariEnv"
_IMAGE_SIZE = 84
_SCREEN_HEIGHT, _SCREEN_WIDTH = 210, 160


class AtariGame(NamedTuple):
    """Game and sticky actions of an Atari id."""

    env_id: str
    rom: str
    sticky_action_probability: float
    max_episode_frames: int


def parse_game_id(env_id: str) -> AtariGame | None:
    """Returns the game of an id, or None if it is not an Atari id.

    Raises:
      MissingExtraError: an Atari id, but ale-py is not installed.
      UnknownEnvironmentError: in ale-py's namespace, but no such game.
    """
    module, _, env_id = env_id.rpartition(":")
    if module not in ("", "ale_py"):
        return None  # an id of somebody's own, whatever it is called
    is_surely_atari = env_id.startswith(_NAMESPACE) or "NoFrameskip-v" in env_id
    if not is_surely_atari and not _LEGACY_ID.fullmatch(env_id):
        return None
    if importlib.util.find_spec("ale_py") is None:
        if is_surely_atari:
            raise MissingExtraError(env_id, EXTRA)
        return None
    import ale_py  # noqa: F401  registers its ids with Gymnasium
    import gymnasium

    spec = gymnasium.registry.get(env_id)
    if spec is not None and spec.entry_point == _ENTRY_POINT:
        return AtariGame(
            env_id=env_id,
            rom=spec.kwargs["game"],
            sticky_action_probability=spec.kwargs["repeat_action_probability"],
            max_episode_frames=spec.kwargs["max_num_frames_per_episode"],
        )
    if is_surely_atari:
        known = [
            name for name, spec in gymnasium.registry.items() if spec.entry_point == _ENTRY_POINT
        ]
        close = difflib.get_close_matches(env_id, known, n=3, cutoff=0.5)
        hint = f"; close matches: {', '.join(close)}" if close else "; ids look like ALE/Pong-v5"
        raise UnknownEnvironmentError(f"ale-py has no environment {env_id!r}{hint}")
    return None


def make_ale_environment(
    game: AtariGame,
    num_slots: int,
    config: EnvironmentConfig,
    num_threads: int = 1,
    *,
    is_rendered: bool = False,
) -> EnvironmentAdapter:
    """Makes `num_slots` slots of an Atari game.

    Args:
      game: from `parse_game_id`.
      num_slots: N.
      config: the Atari options.
      num_threads: emulator threads; more than one per free core does not help.
      is_rendered: whether it is to draw, see `FilmedAtariVectorEnv`.
    """
    from ale_py.vector_env import AtariVectorEnv
    from gymnasium.vector import AutoresetMode

    from impala_actor.environments.spaces import make_environment_spec

    sticky = config.atari_sticky_action_probability
    make_vector_env = functools.partial(
        AtariVectorEnv,
        game.rom,
        num_slots,
        batch_size=0,
        num_threads=max(1, min(num_threads, num_slots)),
        thread_affinity_offset=-1,
        max_num_frames_per_episode=game.max_episode_frames,
        repeat_action_probability=game.sticky_action_probability if sticky is None else sticky,
        full_action_space=False,
        continuous=False,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        frameskip=config.atari_frame_skip,
        maxpool=True,
        noop_max=config.atari_noop_max,
        # ale-py's episodic_life starts a new game after each lost life, so that agents only see
        # first lives. life_loss_info ends the episode and plays on, as the setting means.
        episodic_life=False,
        life_loss_info=config.atari_episodic_life,
        reward_clipping=False,
        use_fire_reset=config.atari_fire_reset,
    )
    vector_env = make_vector_env(
        img_height=_IMAGE_SIZE,
        img_width=_IMAGE_SIZE,
        grayscale=True,
        stack_num=config.atari_frame_stack,
    )
    spec = make_environment_spec(
        vector_env.single_observation_space,
        vector_env.single_action_space,
        config.atari_frame_stack,
    )
    kind = LifeLossAdapter if config.atari_episodic_life else AleAdapter
    if not is_rendered:
        return kind(vector_env, spec)
    twin = make_vector_env(
        img_height=_SCREEN_HEIGHT, img_width=_SCREEN_WIDTH, grayscale=False, stack_num=1
    )
    return kind(FilmedAtariVectorEnv(vector_env, twin, 60.0 / config.atari_frame_skip), spec)


class FilmedAtariVectorEnv:
    """Two vector environments that play the same games: one for the policy, one for pictures.

    ale-py's vector environment returns either the policy's observations (84 x 84, grey) or the
    screen in colour. Emulators are deterministic: with equal seeds and actions both play the same
    frames. Each step verifies that by rewards, ends and frame counters.
    """

    def __init__(self, seen: VectorEnvironment, drawn: VectorEnvironment, fps: float) -> None:
        self.num_envs = seen.num_envs
        self.metadata = {"render_fps": fps}
        self._seen = seen
        self._drawn = drawn
        self._screens: NDArray[np.uint8] | None = None

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Starts the same games in both."""
        observation, infos = self._seen.reset(seed=seed, options=options)
        self._screens, _infos = self._drawn.reset(seed=seed, options=options)
        return observation, infos

    def step(self, actions: Any, /) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps both."""
        result = self._seen.step(actions)
        self._screens, *drawn, infos = self._drawn.step(actions)
        same = all(map(np.array_equal, result[1:4], drawn)) and np.array_equal(
            result[4]["episode_frame_number"], infos["episode_frame_number"]
        )
        if not same:
            raise AssertionError("two emulators with the same seed and actions differ")
        return result

    def render(self) -> list[NDArray[np.uint8]]:
        """Returns the screen of each slot, uint8 [210, 160, 3]."""
        assert self._screens is not None
        return [screens[-1] for screens in self._screens]

    def close(self) -> None:
        """Frees both."""
        self._seen.close()
        self._drawn.close()


class AleAdapter(EnvironmentAdapter):
    """Atari slots whose episodes are whole games."""

    def _pack_seeds(self, seeds: list[int]) -> NDArray[np.int64]:
        return np.array(seeds, np.int64)


class LifeLossAdapter(AleAdapter):
    """Atari slots whose episodes end with each lost life, while the game goes on.

    After a lost life the next step is real: its row is no padding, and the
    observation at which the life was lost opens the next episode. Only the end of
    the game is followed by a padding row. Whether that happened is read off the
    frame counter, which falls at a reset only: `lives` is not reliable, as some
    games show 0 lives during the last one.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # Any: EnvironmentAdapter's own
        super().__init__(*args, **options)
        self._frame_numbers = np.zeros(self.num_slots, np.int32)
        self._awaits_reset = np.zeros(self.num_slots, np.bool_)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Takes one step in every slot; see EnvironmentAdapter and the class's own notes."""
        observation, rewards, terminated, truncated, infos = self._vector_env.step(actions)
        frame_numbers = infos["episode_frame_number"]
        is_padding = self._ended & (frame_numbers <= self._frame_numbers)
        terminated = terminated & ~is_padding
        truncated = truncated & ~is_padding
        plays_on = terminated & ~truncated & (infos["lives"] > 0)
        is_first = is_padding | plays_on | self._awaits_reset

        self._ended = terminated | truncated
        self._awaits_reset = self._ended & ~plays_on
        self._frame_numbers = frame_numbers
        return StepResult(
            self._make_leaves(observation),
            np.where(is_padding, 0.0, rewards).astype(np.float32),
            terminated,
            truncated,
            is_padding,
            is_first,
        )

    def _forget_ends(self) -> None:
        super()._forget_ends()
        self._awaits_reset = np.zeros(self.num_slots, np.bool_)
