"""RenderedEnvironment: one environment slot with rendered frames.

A policy gets the same observations as in training: the slot is made by the same factory, with the
same settings. Used for videos only; runs on the thread that records. An environment without
pictures is refused with a workaround.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import EnvironmentAdapter, Observations, StepResult
from impala_actor.environments.factory import make_environment
from impala_actor.environments.rebuilt import RebuiltEnvironment
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import FOREIGN_ERRORS, ConfigError, ImpalaError, MissingExtraError

EXTRA = "video"
DEFAULT_FRAMES_PER_S = 30.0


class RenderedEnvironment:
    """One slot and its pictures; the first error of the environment's own code ends it.

    Attributes:
      spec: the environment's specification.
      frames_per_s: natural speed of the pictures.
    """

    def __init__(
        self,
        env_id: str,
        make: Callable[[], EnvironmentAdapter],
        watchdog: EnvironmentWatchdog | None = None,
    ) -> None:
        """Makes the slot.

        Args:
          env_id: for messages.
          make: makes one slot that draws itself.
          watchdog: entered for every call, owned by the caller; None: calls have no time limit.
        """
        self._env_id = env_id
        self._watchdog = watchdog or EnvironmentWatchdog(0.0)

        def make_kept() -> EnvironmentAdapter:
            self._adapter = make()
            return self._adapter

        self._slot = RebuiltEnvironment(make_kept, None, watchdog, max_failures=1, env=env_id)
        self.spec = self._slot.spec
        self.frames_per_s = float(self._adapter.frames_per_s or DEFAULT_FRAMES_PER_S)

    def start(self, seed: int) -> Observations:
        """Starts an episode; raises EnvironmentFailedError if that fails."""
        return self._slot.start(seed)

    def step(self, actions: NDArray[np.generic]) -> StepResult:
        """Takes one step; raises EnvironmentFailedError if that fails."""
        return self._slot.step(actions)

    def render(self) -> NDArray[np.uint8]:
        """Returns the slot's present picture: uint8 [H, W, 3].

        Raises:
          ConfigError: it has no pictures.
          MissingExtraError: pictures need an optional package.
        """
        try:
            with self._watchdog:
                pictures = self._adapter.render()
        except ImpalaError:
            raise
        except FOREIGN_ERRORS as error:  # drawing libraries may raise any error
            raise _explain(self._env_id, error) from error
        picture = pictures[0] if isinstance(pictures, list | tuple) and pictures else None
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
            shown = getattr(picture, "shape", type(picture).__name__)
            raise _refuse(self._env_id, f"its render() gave {shown}, not a picture [H, W, 3]")
        if picture.dtype == np.uint8:
            return picture
        # A cast would show 0 to 1 as black, and wrap 256 to 0.
        if picture.dtype.kind not in "iu" or picture.min() < 0 or picture.max() > 255:
            found = f"{picture.dtype} from {picture.min():g} to {picture.max():g}"
            raise _refuse(self._env_id, f"its render() gave {found}, not uint8 from 0 to 255")
        return picture.astype(np.uint8)

    def close(self) -> None:
        """Frees the environment."""
        self._slot.close()


def make_rendered_environment(
    env_id: str, config: EnvironmentConfig, watchdog: EnvironmentWatchdog | None = None
) -> RenderedEnvironment:
    """Makes one slot of the environment as `config` says, drawn, with whole games as episodes.

    Raises:
      ImpalaError: see `impala_actor.environments.factory.make_environment`.
      UnknownEnvironmentError: the environment's own code raised.
      ConfigError: the environment has no pictures.
    """

    def make() -> EnvironmentAdapter:
        try:
            return make_environment(env_id, 1, config.with_whole_games(), is_rendered=True)
        except TypeError as error:  # its constructor takes no render_mode
            raise _explain(env_id, error) from error

    return RenderedEnvironment(env_id, make, watchdog)


def prepare_headless() -> None:
    """Tells drawing libraries to work without a display if there is none.

    For commands only: it sets environment variables of this process. Variables that are set stay.
    """
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("MUJOCO_GL", "egl")


def _explain(env_id: str, error: BaseException) -> ImpalaError:
    text: Any = str(error) or type(error).__name__
    if "pygame" in text:
        return MissingExtraError(f"drawing {env_id}", EXTRA)
    return _refuse(env_id, f"{type(error).__name__}: {text}")


def _refuse(env_id: str, reason: str) -> ConfigError:
    return ConfigError(
        "env",
        env_id,
        "an environment that draws itself with render_mode rgb_array",
        f"{reason}; film it on another environment of the same spaces (--env), or give it "
        "a wrapper whose render() returns uint8 [H, W, 3]",
    )
