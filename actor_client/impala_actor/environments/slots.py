"""make_slots: N environment slots from a function that makes one environment.

Called by the backend for Gymnasium ids and by the factory for environments given as
objects, on the actor's main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from impala_actor.environments.actions import make_decode_actions
from impala_actor.environments.adapter import EnvironmentAdapter, VectorEnvironment
from impala_actor.environments.observations import ObservationEncoder
from impala_actor.environments.pause_row import PauseRowAdapter
from impala_actor.environments.slot_guard import SlotGuard, explain_failure, require_gymnasium
from impala_actor.environments.spaces import make_environment_spec
from impala_actor.environments.wrappers import Wrapper
from impala_common.errors import UnsupportedSpaceError

EnvMaker = Callable[[], gymnasium.Env[Any, Any]]  # Any: environments of any spaces


def make_slots(
    env_name: str,
    maker: EnvMaker,
    num_slots: int,
    vectorization: Literal["sync", "async"],
    wrappers: Sequence[Wrapper] = (),
) -> EnvironmentAdapter:
    """Makes `num_slots` slots with `maker`.

    Args:
      env_name: its name in messages.
      maker: returns a new environment at each call.
      num_slots: N.
      vectorization: "sync" is a loop in this process, "async" one process per slot.
      wrappers: applied to each environment, the first innermost.

    Raises:
      UnknownEnvironmentError: `maker` does not return Gymnasium environments.
      UnsupportedSpaceError: spaces this version cannot train on.
      ConfigError: a wrapper cannot be applied.
    """

    def make_one() -> SlotGuard:
        env = maker()
        require_gymnasium(env, env_name)
        _require_spaces(env, env_name)
        for wrapper in wrappers:
            env = wrapper(env)
        return SlotGuard(env, env_name, checks_every_step=vectorization == "async")

    # copy=False: observations stay valid until the next step, as StepResult promises.
    kind = SyncVectorEnv if vectorization == "sync" else AsyncVectorEnv
    vector_env = kind([make_one] * num_slots, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
    try:
        return adapt(vector_env)
    except BaseException:
        vector_env.close()
        raise


def _require_spaces(env: gymnasium.Env[Any, Any], env_name: str) -> None:
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, gymnasium.Space):
            raise UnsupportedSpaceError(
                f"{env_name}: {name} is {space!r:.80}, expected a gymnasium.Space"
            )


def adapt(
    vector_env: gymnasium.vector.VectorEnv[Any, Any, Any],  # Any: any spaces
    *,
    has_slot_seeds: bool = True,
    frame_stack: int = 0,
) -> EnvironmentAdapter:
    """Wraps a vector environment of any autoreset mode; the default is NEXT_STEP."""
    observation_space = vector_env.single_observation_space
    spec = make_environment_spec(
        observation_space,
        vector_env.single_action_space,
        frame_stack,
        (vector_env.metadata or {}).get("image_axes", ""),
    )
    encode = ObservationEncoder(observation_space, vector_env.num_envs)
    options: dict[str, Any] = {  # Any: options of different types
        "has_slot_seeds": has_slot_seeds,
        "encode": encode if encode.is_needed else None,
        "decode_actions": make_decode_actions(vector_env.single_action_space, spec.action),
        "explain": lambda error: explain_failure(vector_env, error),
    }
    mode = AutoresetMode(vector_env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
    environment = cast(VectorEnvironment, vector_env)
    if mode == AutoresetMode.NEXT_STEP:
        return EnvironmentAdapter(environment, spec, **options)
    is_same_step = mode == AutoresetMode.SAME_STEP
    return PauseRowAdapter(environment, spec, is_same_step=is_same_step, **options)
