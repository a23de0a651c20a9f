"""Makes adapters for environments that Gymnasium knows by id.

"module:EnvId" imports the module first, which is where a user's own environment
registers itself. Called by the factory, on the actor's main thread.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any, Literal, cast

import gymnasium
from gymnasium.vector import AutoresetMode

from impala_actor.environments.actions import make_decode_actions
from impala_actor.environments.adapter import EnvironmentAdapter, VectorEnvironment
from impala_actor.environments.pause_row import PauseRowAdapter
from impala_actor.environments.spaces import make_encode, make_environment_spec
from impala_common.errors import ConfigError, UnknownEnvironmentError

GymnasiumBackend = Literal["auto", "entry-point", "sync", "async"]

EXAMPLES = "CartPole-v1, ALE/Pong-v5, MinAtar/Breakout-v1"


def make_gymnasium_environment(
    env_id: str,
    num_slots: int,
    backend: GymnasiumBackend = "auto",
    *,
    is_rendered: bool = False,
) -> EnvironmentAdapter:
    """Makes `num_slots` slots of a Gymnasium environment.

    Args:
      env_id: a registered id, or "module:id".
      num_slots: N.
      backend: "entry-point" is the environment's own vector class, "sync" a loop in this
        process, "async" one process per slot; "auto" the first of the first two that it has.
      is_rendered: whether it is to draw: then the loop is taken wherever there is one.

    Raises:
      UnknownEnvironmentError: no such id, or it cannot be made here.
      UnsupportedSpaceError: spaces this version cannot train on.
      ConfigError: "entry-point" for an environment that has none.
    """
    spec = _find_spec(env_id)
    has_entry_point = spec.vector_entry_point is not None
    if backend == "entry-point" and not has_entry_point:
        raise ConfigError(
            "env_backend", backend, "auto, sync or async", f"{env_id} has no vector entry point"
        )
    if backend == "auto":
        backend = "entry-point" if has_entry_point else "sync"
    if is_rendered and spec.entry_point is not None:
        backend = "sync"
    render_options = {"render_mode": "rgb_array"} if is_rendered else {}
    try:
        vector_env = _make_vector(spec, num_slots, backend, render_options)
    except (gymnasium.error.Error, ImportError) as error:
        raise UnknownEnvironmentError(f"{env_id} cannot be made here: {error}") from error
    try:
        return adapt(vector_env, has_slot_seeds=backend != "entry-point")
    except BaseException:
        vector_env.close()
        raise


def make_from_maker(
    name: str,
    maker: Callable[[], gymnasium.Env[Any, Any]],  # Any: any spaces
    num_slots: int,
    backend: str = "auto",
) -> EnvironmentAdapter:
    """Makes `num_slots` slots by calling `maker` once for each.

    Raises:
      ConfigError: `maker` fails or makes something else, or the backend cannot take it.
      UnsupportedSpaceError: spaces this version cannot train on.
    """
    if backend not in ("auto", "sync", "async"):
        raise ConfigError("env_backend", backend, "auto, sync or async", f"{name} has no other")

    def make_one() -> gymnasium.Env[Any, Any]:  # Any: any spaces
        try:
            environment = maker()
        except Exception as error:  # a user's code
            raise ConfigError(
                "env",
                name,
                "something that makes an environment",
                f"{type(error).__name__}: {error}",
            ) from error
        if not isinstance(environment, gymnasium.Env):
            raise ConfigError(
                "env",
                name,
                "something that makes a gymnasium.Env",
                f"it made {type(environment).__module__}.{type(environment).__qualname__}",
            )
        return environment

    kind = gymnasium.vector.AsyncVectorEnv if backend == "async" else gymnasium.vector.SyncVectorEnv
    vector_env = kind([make_one] * num_slots, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
    try:
        return adapt(vector_env)
    except BaseException:
        vector_env.close()
        raise


def adapt(
    vector_env: gymnasium.vector.VectorEnv[Any, Any, Any],  # Any: any spaces
    *,
    has_slot_seeds: bool = True,
    frame_stack: int = 0,
) -> EnvironmentAdapter:
    """Wraps a vector environment of any autoreset mode; one that names none is NEXT_STEP."""
    observation_space = vector_env.single_observation_space
    spec = make_environment_spec(observation_space, vector_env.single_action_space, frame_stack)
    encode = make_encode(observation_space)
    decode = make_decode_actions(vector_env.single_action_space, spec.action)
    mode = AutoresetMode(vector_env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
    environment = cast(VectorEnvironment, vector_env)
    if mode == AutoresetMode.NEXT_STEP:
        return EnvironmentAdapter(
            environment,
            spec,
            has_slot_seeds=has_slot_seeds,
            encode=encode,
            decode_actions=decode,
        )
    return PauseRowAdapter(
        environment,
        spec,
        is_same_step=mode == AutoresetMode.SAME_STEP,
        has_slot_seeds=has_slot_seeds,
        encode=encode,
        decode_actions=decode,
    )


def _make_vector(
    spec: gymnasium.envs.registration.EnvSpec,
    num_slots: int,
    backend: GymnasiumBackend,
    options: dict[str, Any],  # Any: arguments of the environment
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    if backend == "entry-point":
        # make_vec hands on the registered time limit (CartPole-v1: 500); the vector classes
        # themselves default to whatever they like.
        return gymnasium.make_vec(
            spec, num_slots, vectorization_mode="vector_entry_point", **options
        )
    # copy=False: observations stay valid until the next step, all that StepResult promises.
    return gymnasium.make_vec(
        spec,
        num_slots,
        vectorization_mode=backend,
        vector_kwargs={"copy": False, "autoreset_mode": AutoresetMode.NEXT_STEP},
        disable_env_checker=True,
        **options,
    )


def _find_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    module, colon, name = env_id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UnknownEnvironmentError(
                f"{env_id}: module {module} cannot be imported: {error}"
            ) from error
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise UnknownEnvironmentError(_describe_unknown(name, module, str(error))) from error


def _describe_unknown(name: str, module: str, reason: str) -> str:
    close = difflib.get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.6)
    text = f"no environment {name!r}" + (f" after importing {module}" if module else "")
    if close:
        return f"{text}; close matches: {', '.join(close)}"
    return (
        f"{text} ({reason}); ids look like {EXAMPLES}, and an environment of your own is named "
        "with the module that registers it: my_package.my_module:MyEnv-v0"
    )
