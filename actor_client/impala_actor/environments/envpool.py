"""EnvPool's C++ environments, under EnvPool's own ids (CartPole-v1, Pong-v5).

Selected with env_backend = envpool. Its Gymnasium interface autoresets in the next step. Atari
options are passed on; its episodes are whole games.
"""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import ConfigError, MissingExtraError, UnknownEnvironmentError

EXTRA = "envpool"


class EnvPoolVectorEnv:
    """A pool with the interface of a Gymnasium VectorEnv, made again at each reset.

    EnvPool takes seeds when a pool is made and ignores those given to its reset.
    """

    def __init__(self, env_id: str, num_envs: int, options: dict[str, Any]) -> None:
        self.num_envs = num_envs
        self._env_id = env_id
        self._options = options
        self._pool: Any = None  # Any: EnvPool has no types

    def reset(
        self, *, seed: list[int] | None = None, options: None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Makes the pool with one seed per slot and starts it."""
        import envpool

        assert seed is not None
        self.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the precision of its spaces' bounds
            self._pool = envpool.make(
                self._env_id,
                env_type="gymnasium",
                num_envs=self.num_envs,
                seed=seed,
                **self._options,
            )
            observation, infos = self._pool.reset()
        return observation, infos

    def step(self, actions: NDArray[np.int64], /) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all slots."""
        observation, rewards, terminated, truncated, infos = self._pool.step(actions)
        return observation, rewards, terminated, truncated, infos

    def render(self) -> None:
        """Returns None: EnvPool has no pictures."""

    def close(self) -> None:
        """Frees the pool."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def make_envpool_environment(
    env_id: str, num_slots: int, config: EnvironmentConfig, num_threads: int = 1
) -> EnvironmentAdapter:
    """Makes `num_slots` slots of an EnvPool environment.

    Raises:
      MissingExtraError: EnvPool is not installed.
      UnknownEnvironmentError: EnvPool has no environment of that id.
      UnsupportedSpaceError: spaces this version cannot train on.
      ConfigError: episodic life, which only the ale backend has.
    """
    if importlib.util.find_spec("envpool") is None:
        raise MissingExtraError(f"{env_id} with env_backend envpool", EXTRA)
    import envpool

    from impala_actor.environments.actions import make_decode_actions
    from impala_actor.environments.observations import ObservationEncoder
    from impala_actor.environments.spaces import make_environment_spec

    known = envpool.list_all_envs()
    if env_id not in known:
        close = difflib.get_close_matches(env_id, known, n=3, cutoff=0.6)
        hint = f"; close matches: {', '.join(close)}" if close else ""
        raise UnknownEnvironmentError(f"EnvPool has no environment {env_id!r}{hint}")
    options: dict[str, Any] = {"num_threads": min(num_threads, num_slots)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the precision of its spaces' bounds
        is_atari = "use_fire_reset" in envpool.make_spec(env_id).config._fields
        if is_atari:
            options |= _make_atari_options(config)
        pool_spec = envpool.make_spec(env_id, **options)
        observation_space = pool_spec.gymnasium_observation_space
        action_space = pool_spec.gymnasium_action_space
    spec = make_environment_spec(
        observation_space, action_space, config.atari_frame_stack if is_atari else 0
    )
    vector_env = EnvPoolVectorEnv(env_id, num_slots, options)
    encode = ObservationEncoder(observation_space, num_slots)
    return EnvironmentAdapter(
        vector_env,
        spec,
        encode=encode if encode.is_needed else None,
        decode_actions=make_decode_actions(action_space, spec.action),
    )


def _make_atari_options(config: EnvironmentConfig) -> dict[str, Any]:
    if config.atari_episodic_life:
        raise ConfigError(
            "atari_episodic_life",
            config.atari_episodic_life,
            "False with env_backend envpool",
            "returns of whole games could not be reported",
        )
    return {
        "frame_skip": config.atari_frame_skip,
        "stack_num": config.atari_frame_stack,
        "repeat_action_probability": config.atari_sticky_action_probability or 0.0,
        "use_fire_reset": config.atari_fire_reset,
        "noop_max": config.atari_noop_max,
        "reward_clip": False,
        "episodic_life": False,
    }
