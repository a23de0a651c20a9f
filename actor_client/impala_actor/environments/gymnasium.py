"""Makes adapters for environments that Gymnasium knows by id.

"module:EnvId" imports the module first, which registers a user's own environment. Called by the
factory, on the actor's main thread.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import inspect
import logging
import sys
from typing import Any, Literal

import gymnasium

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_actor.environments.old_gym import refuse_old_gym
from impala_actor.environments.slots import adapt, has_info_mask, make_slots
from impala_actor.environments.suggestions import suggest_ids
from impala_actor.environments.wrappers import load_wrappers
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import (
    FOREIGN_ERRORS,
    ConfigError,
    ImpalaError,
    MissingExtraError,
    UnknownEnvironmentError,
)
from impala_common.process.own_modules import hint_at_import_error, import_own_module

GymnasiumBackend = Literal["auto", "entry-point", "sync", "async"]

_LOG = logging.getLogger(__name__)

EXAMPLES = "CartPole-v1, ALE/Pong-v5, MinAtar/Breakout-v1"

_PROVIDERS = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Prefixes of ids, and the module that registers them; the pip extra has the same name."""


def make_gymnasium_environment(
    env_id: str,
    num_slots: int,
    backend: GymnasiumBackend,
    config: EnvironmentConfig,
    *,
    is_rendered: bool = False,
) -> EnvironmentAdapter:
    """Makes `num_slots` slots of a Gymnasium environment.

    Args:
      env_id: a registered id, or "module:id".
      num_slots: N.
      backend: "entry-point" is the environment's own vector class, "sync" a loop in this
        process, "async" one process per slot; "auto" is "entry-point" if the environment has one,
        else "sync", and always "sync" with wrappers or arguments.
      config: env_kwargs and env_wrapper are used.
      is_rendered: whether it is to return pictures: then the loop is preferred.

    Raises:
      UnknownEnvironmentError: no such id, or it cannot be made on this machine.
      MissingExtraError: it needs an optional package.
      UnsupportedSpaceError: spaces this version cannot train on.
      ConfigError: "entry-point" for an environment that has none, or with wrappers or arguments;
        wrappers or arguments that do not work.
    """
    if config.parsed_env_kwargs.get("render_mode") == "human":
        raise ConfigError(
            "env_kwargs",
            config.env_kwargs,
            "without render_mode human",
            "a window would open for every slot; impala-eval --video films a policy",
        )
    spec = _without_windows(find_spec(env_id))
    backend = _choose_backend(spec, backend, config)
    if is_rendered and spec.entry_point is not None:
        backend = "sync"
    render_options = {"render_mode": "rgb_array"} if is_rendered else {}
    if backend == "entry-point":
        vector_env = _make_entry_point(spec, num_slots, env_id, render_options)
        try:
            return adapt(vector_env, has_slot_seeds=False, has_info_mask=has_info_mask(vector_env))
        except BaseException:
            with contextlib.suppress(*FOREIGN_ERRORS):  # what is wrong is said by the first error
                vector_env.close()
            raise
    kwargs = config.parsed_env_kwargs | render_options

    def make_one() -> gymnasium.Env[Any, Any]:
        return gymnasium.make(spec, disable_env_checker=True, **kwargs)

    try:
        return make_slots(env_id, make_one, num_slots, backend, load_wrappers(config.env_wrapper))
    except ImpalaError:
        raise
    except FOREIGN_ERRORS as error:
        raise _translate(error, env_id, config) from error


def _without_windows(
    spec: gymnasium.envs.registration.EnvSpec,
) -> gymnasium.envs.registration.EnvSpec:
    """Returns the spec with render_mode None where the environment would open a window."""
    mode = spec.kwargs.get("render_mode")
    if mode is None:
        try:
            creator: Any = spec.entry_point
            if isinstance(creator, str):
                creator = gymnasium.envs.registration.load_env_creator(creator)
            parameters = inspect.signature(creator).parameters if creator is not None else {}
        except FOREIGN_ERRORS as error:  # making it will say what is wrong
            _LOG.debug("no look at the arguments of %s: %s", spec.id, error)
            return spec
        mode = parameters["render_mode"].default if "render_mode" in parameters else None
    if mode != "human":
        return spec
    spec = copy.deepcopy(spec)
    spec.kwargs["render_mode"] = None
    return spec


def _choose_backend(
    spec: gymnasium.envs.registration.EnvSpec,
    backend: GymnasiumBackend,
    config: EnvironmentConfig,
) -> Literal["entry-point", "sync", "async"]:
    has_entry_point = spec.vector_entry_point is not None
    if backend == "entry-point" and not has_entry_point:
        raise ConfigError(
            "env_backend", backend, "auto, sync or async", f"{spec.id} has no vector entry point"
        )
    if backend == "entry-point" and config.changes_single_environments:
        raise ConfigError(
            "env_backend",
            backend,
            "auto, sync or async with env_wrapper or env_kwargs",
            "they are for single environments, and a vector class has none",
        )
    if backend != "auto":
        return backend
    return "entry-point" if has_entry_point and not config.changes_single_environments else "sync"


def _make_entry_point(
    spec: gymnasium.envs.registration.EnvSpec,
    num_slots: int,
    env_id: str,
    options: dict[str, Any],  # Any: arguments of the environment
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:  # Any: any spaces
    try:
        # make_vec passes on the registered time limit (CartPole-v1: 500); the vector classes have
        # defaults of their own.
        return gymnasium.make_vec(
            spec, num_slots, vectorization_mode="vector_entry_point", **options
        )
    except (gymnasium.error.Error, ImportError) as error:
        raise UnknownEnvironmentError(f"{env_id} cannot be made here: {error}") from error


def _translate(error: BaseException, env_id: str, config: EnvironmentConfig) -> BaseException:
    """Returns the error for an environment that could not be made, or the exception itself."""
    text = str(error)
    if isinstance(error, TypeError) and "Gym is incompatible with Gymnasium" in text:
        return refuse_old_gym(env_id, "its class derives from gym.Env, not from gymnasium.Env")
    if isinstance(error, gymnasium.error.Error | ImportError):
        return UnknownEnvironmentError(f"{env_id} cannot be made here: {error}")
    if config.parsed_env_kwargs:
        return ConfigError(
            "env_kwargs", config.env_kwargs, f"what {env_id} takes", f"it raised {error!r}"
        )
    if isinstance(error, TypeError) and "must inherit from the gymnasium.Env" in text:
        return UnknownEnvironmentError(f"{env_id} cannot be made here: {error}")
    return error


def find_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """Returns the registered specification; makes no environment.

    Raises:
      UnknownEnvironmentError: no such id; the text names those that may be meant.
      MissingExtraError: the package that registers it is missing.
    """
    module, colon, name = env_id.rpartition(":")
    if colon:
        if not all(part.isidentifier() for part in module.split(".")):
            raise UnknownEnvironmentError(
                f"{env_id}: {module!r} is no name of a module; ids look like {EXAMPLES}, or "
                "my_package.my_module:MyEnv-v0 for an environment of your own"
            )
        try:
            import_own_module(module)
        except FOREIGN_ERRORS as error:
            kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
            hint = hint_at_import_error(module, error)
            raise UnknownEnvironmentError(
                f"{env_id}: module {module} cannot be imported: {kind}{error}{hint}"
            ) from error
    else:
        _import_provider(name)
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        if _is_known_to_old_gym(name):
            raise refuse_old_gym(
                env_id, "it is registered with the old Gym package, not with Gymnasium"
            ) from error
        raise UnknownEnvironmentError(_describe_unknown(name, module, str(error))) from error


def _import_provider(name: str) -> None:
    """Imports the package that registers ids with this prefix, if it is a known prefix."""
    for beginning, module in _PROVIDERS.items():
        if name.startswith(beginning) and name not in gymnasium.registry:
            if importlib.util.find_spec(module) is None:
                raise MissingExtraError(name, module)
            importlib.import_module(module)


def _is_known_to_old_gym(name: str) -> bool:
    """Returns whether the old Gym is imported and has an environment of that id."""
    registration = getattr(getattr(sys.modules.get("gym"), "envs", None), "registration", None)
    registry = getattr(registration, "registry", None)
    specs = getattr(registry, "env_specs", registry)  # until version 0.25 an object around a dict
    return isinstance(specs, dict) and name in specs


def _describe_unknown(name: str, module: str, reason: str) -> str:
    close = suggest_ids(name)
    text = f"no environment {name!r}" + (f" after importing {module}" if module else "")
    if close:
        return f"{text}; close matches: {', '.join(close)}"
    return (
        f"{text} ({reason}); ids look like {EXAMPLES}, and an environment of your own is named "
        "with the module that registers it: my_package.my_module:MyEnv-v0"
    )
