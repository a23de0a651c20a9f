"""Records episodes: plays one slot with frozen weights and keeps the rendered frames.

Used by `impala-eval --video` and by evaluation during training. The policy is the ordinary one
(`impala_common.policy.policy`), which handles recurrent state. Memory is bounded: pictures go to an
encoder one by one, or into a FrameBuffer that shrinks and thins them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import StepResult
from impala_actor.environments.rendering import RenderedEnvironment, make_rendered_environment
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_actor.evaluation.policy_evaluation import EvaluablePolicy
from impala_common.config.sections import EnvironmentConfig

Frame = NDArray[np.uint8]
TakeFrame = Callable[[Frame], None]

DEFAULT_MAX_STEPS = 10_000
"""Most agent steps of one video; longer episodes are cut."""
DEFAULT_MAX_FRAMES = 600
"""Most pictures of one recording in memory."""
DEFAULT_MAX_SIDE = 320
"""Largest side of its pictures in pixels; larger ones are shrunk."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """One episode as pictures in memory.

    Attributes:
      frames: uint8 [F, H, W, 3]: from the reset to the final observation.
      frames_per_s: natural speed of the pictures.
      episode_return: sum of raw rewards.
      num_steps: agent steps.
      is_cut: whether it was cut for its length.
    """

    frames: NDArray[np.uint8]
    frames_per_s: float
    episode_return: float
    num_steps: int
    is_cut: bool


@dataclasses.dataclass(frozen=True, slots=True)
class PlayedEpisode:
    """Return and length of a filmed episode, without its pictures."""

    episode_return: float
    num_steps: int
    is_cut: bool


class FrameBuffer:
    """The pictures of one episode, never more than `max_frames` of at most `max_side` pixels.

    When it is full, every second picture is dropped, and from then on every second one is skipped,
    at half the speed: it covers the whole episode at a coarser time scale.
    """

    def __init__(
        self,
        frames_per_s: float,
        max_frames: int = DEFAULT_MAX_FRAMES,
        max_side: int = DEFAULT_MAX_SIDE,
    ) -> None:
        if max_frames < 2 or max_side < 1:
            raise ValueError(f"max_frames {max_frames} must be at least 2, max_side {max_side} 1")
        self._full_speed = frames_per_s
        self._max_frames = max_frames
        self._max_side = max_side
        self._stride = 1
        self._num_seen = 0
        self._frames: list[Frame] = []

    @property
    def frames_per_s(self) -> float:
        """Natural speed of the kept pictures."""
        return self._full_speed / self._stride

    def take(self, frame: Frame) -> None:
        """Keeps a copy of the next picture, uint8 [H, W, 3], or skips it."""
        if self._num_seen % self._stride == 0:
            if len(self._frames) == self._max_frames:
                self._frames = self._frames[::2]
                self._stride *= 2
            if self._num_seen % self._stride == 0:
                self._frames.append(shrink(frame, self._max_side))
        self._num_seen += 1

    @property
    def frames(self) -> list[Frame]:
        """The kept pictures; read only."""
        return self._frames

    def stack(self) -> NDArray[np.uint8]:
        """Returns uint8 [F, H, W, 3]."""
        return np.stack(self._frames)


def shrink(frame: Frame, max_side: int) -> Frame:
    """Returns a copy whose longer side has at most `max_side` pixels: means of square blocks."""
    height, width = frame.shape[:2]
    factor = -(-max(height, width) // max_side)
    if factor == 1:
        return frame.copy()
    height, width = max(height // factor, 1), max(width // factor, 1)
    factor_y, factor_x = min(factor, frame.shape[0]), min(factor, frame.shape[1])
    blocks = frame[: height * factor_y, : width * factor_x]
    blocks = blocks.reshape(height, factor_y, width, factor_x, 3)
    means: Frame = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    return means


class EpisodePlayer:
    """Plays one episode after the other in a rendered slot; owned by the thread that records."""

    def __init__(
        self,
        policy: EvaluablePolicy,
        environment: RenderedEnvironment,
        *,
        seed: int,
        is_greedy: bool = False,
    ) -> None:
        """Starts the first episode; environment and draws derive from `seed` and the policy's."""
        self._policy = policy
        self._environment = environment
        self._is_greedy = is_greedy
        self._observations = environment.start(seed)
        self._is_first = np.ones(1, np.bool_)

    def play(self, take_frame: TakeFrame, max_steps: int = DEFAULT_MAX_STEPS) -> PlayedEpisode:
        """Plays to the end of the episode, or cuts it after `max_steps`.

        Args:
          take_frame: called with each picture, from the reset to the final observation.
          max_steps: at least 1. A cut episode must be the last one played.
        """
        take_frame(self._environment.render())
        episode_return = 0.0
        for num_steps in range(1, max_steps + 1):
            step = self._step()
            episode_return += float(step.rewards[0])
            take_frame(self._environment.render())
            if step.terminated[0] or step.truncated[0]:
                while not self._is_first[0]:
                    self._step()  # the padding row: its observation opens the next episode
                return PlayedEpisode(episode_return, num_steps, is_cut=False)
        return PlayedEpisode(episode_return, max_steps, is_cut=True)

    def _step(self) -> StepResult:
        chosen = self._policy.act(self._observations, self._is_first, is_greedy=self._is_greedy)
        step = self._environment.step(chosen.actions)
        self._policy.observe(step.rewards, step.is_first)
        self._observations, self._is_first = step.observations, step.is_first
        return step


def record_episodes(
    policy: EvaluablePolicy,
    env: str,
    config: EnvironmentConfig,
    *,
    num_episodes: int,
    seed: int,
    max_steps: int = DEFAULT_MAX_STEPS,
    is_greedy: bool = False,
    max_frames: int = DEFAULT_MAX_FRAMES,
    max_side: int = DEFAULT_MAX_SIDE,
    watchdog: EnvironmentWatchdog | None = None,
) -> list[Recording]:
    """Plays whole games and returns their pictures, fewer and smaller ones than were drawn.

    Args:
      policy: a policy of one slot.
      env: id of the environment, which is made here and closed again.
      config: its settings.
      num_episodes: number of episodes; fewer are returned if one was cut.
      seed: of the environment; the policy has its own.
      max_steps: agent steps after which an episode is cut.
      is_greedy: take the most probable action in place of drawing one.
      max_frames: of one recording; longer ones are thinned out.
      max_side: pixels of a picture's longer side; larger ones are shrunk.
      watchdog: entered for every call of the environment; None: calls have no time limit.

    Raises:
      EnvironmentFailedError: the environment's own code raised.
      ConfigError: the environment has no pictures.
      ImpalaError: it cannot be made; see `make_rendered_environment`.
    """
    recordings: list[Recording] = []
    with contextlib.closing(make_rendered_environment(env, config, watchdog)) as environment:
        player = EpisodePlayer(policy, environment, seed=seed, is_greedy=is_greedy)
        while len(recordings) < num_episodes:
            buffer = FrameBuffer(environment.frames_per_s, max_frames, max_side)
            played = player.play(buffer.take, max_steps)
            recordings.append(
                Recording(
                    buffer.stack(),
                    buffer.frames_per_s,
                    played.episode_return,
                    played.num_steps,
                    played.is_cut,
                )
            )
            if played.is_cut:
                break
    return recordings
