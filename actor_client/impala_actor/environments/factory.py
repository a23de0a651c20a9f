"""make_environment: makes the adapter for an environment id and its settings.

Actors and evaluation make all environments through it. Backends are imported when they are needed:
importing this file is cheap and needs no extras.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_actor.environments.torch_defaults import kept_torch_defaults
from impala_common.config.checks import OBJECT_PREFIX
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import FOREIGN_ERRORS, ConfigError, UnknownEnvironmentError

if TYPE_CHECKING:
    import gymnasium

Maker = Callable[[], "gymnasium.Env[Any, Any]"]  # Any: any spaces
"""Makes one environment; called once per slot."""

_makers: dict[str, Maker] = {}


def register_environment(name: str, maker: Maker) -> None:
    """Registers the maker of an environment in this process under `name`, "object:" and a word."""
    _makers[name] = maker


def is_registered(name: str) -> bool:
    """Returns whether this process has a registered maker of that name."""
    return name in _makers


def make_environment(
    env_id: str,
    num_slots: int,
    config: EnvironmentConfig | None = None,
    num_threads: int = 1,
    is_rendered: bool = False,
) -> EnvironmentAdapter:
    """Makes `num_slots` slots of the environment `env_id`.

    Args:
      env_id: such as CartPole-v1, ALE/Pong-v5, PongNoFrameskip-v4, MinAtar/Breakout-v1 or
        my_module:MyEnv-v0.
      num_slots: N; envs_per_actor of `config` is ignored.
      config: backend, wrappers, arguments and the Atari options; None: defaults.
      num_threads: threads of environments that are vectorised in native code.
      is_rendered: whether the adapter's `render` returns pictures; prefer
        `impala_actor.environments.rendering`.

    Raises:
      UnknownEnvironmentError: there is no such environment on this machine.
      MissingExtraError: it needs an optional package.
      UnsupportedSpaceError: this version cannot train on its spaces.
      ConfigError: backend, wrappers or arguments do not fit the environment.
    """
    config = dataclasses.replace(config or EnvironmentConfig(), env=env_id)
    with kept_torch_defaults():
        return _make(env_id, num_slots, config, num_threads, is_rendered)


def _make(
    env_id: str, num_slots: int, config: EnvironmentConfig, num_threads: int, is_rendered: bool
) -> EnvironmentAdapter:
    from impala_actor.environments import ale, minatar

    if env_id.startswith(OBJECT_PREFIX):
        return _make_registered(env_id, num_slots, config, is_rendered)
    backend = config.env_backend
    if backend == "envpool":
        from impala_actor.environments import envpool

        if is_rendered:
            raise ConfigError(
                "env",
                env_id,
                "an environment that can be drawn",
                "EnvPool draws nothing; a run trained with env_backend auto can be filmed",
            )
        _require_no_changes(env_id, config, "another env_backend")
        return envpool.make_envpool_environment(env_id, num_slots, config, num_threads)
    if env_id.startswith(minatar.PREFIX):
        if backend not in ("auto", "sync"):
            raise ConfigError("env_backend", backend, "auto or sync", f"{env_id} has no other")
        _require_no_changes(env_id, config)
        return minatar.make_minatar_environment(env_id, num_slots)
    if backend in ("auto", "ale"):
        game = ale.parse_game_id(env_id)
        if game is not None:
            _require_no_changes(
                env_id,
                config,
                f"--env ale_py:{env_id} --env-backend sync, which makes the raw environment (the "
                "atari_... settings then do nothing: prepare frames with wrappers as well)",
            )
            return ale.make_ale_environment(
                game, num_slots, config, num_threads, is_rendered=is_rendered
            )
    if backend == "ale":
        raise ConfigError("env", env_id, "an Atari id such as ALE/Pong-v5", "env_backend is ale")
    from impala_actor.environments import gymnasium

    return gymnasium.make_gymnasium_environment(
        env_id, num_slots, backend, config, is_rendered=is_rendered
    )


def validate_environment_id(env_id: str, config: EnvironmentConfig) -> None:
    """Checks what can be known of an environment without making it; takes a second at most.

    Raises:
      UnknownEnvironmentError: there is no such environment on this machine.
      MissingExtraError: it needs an optional package.
      ConfigError: its arguments are not JSON, or a wrapper cannot be imported.
    """
    from impala_actor.environments import ale, minatar
    from impala_actor.environments.wrappers import load_wrappers

    _ = config.parsed_env_kwargs
    load_wrappers(config.env_wrapper)
    if env_id.startswith(OBJECT_PREFIX) or config.env_backend == "envpool":
        return  # known to their makers alone
    if env_id.startswith(minatar.PREFIX):
        minatar.validate_game(env_id)
        return
    if config.env_backend in ("auto", "ale") and ale.parse_game_id(env_id) is not None:
        return
    from impala_actor.environments import gymnasium

    gymnasium.find_spec(env_id)


def _require_no_changes(env_id: str, config: EnvironmentConfig, way_round: str = "") -> None:
    """Raises ConfigError for wrappers or arguments if the backend has no single environments."""
    for name, value in (("env_wrapper", config.env_wrapper), ("env_kwargs", config.env_kwargs)):
        if value:
            hint = f"; they work with {way_round}" if way_round else ""
            raise ConfigError(
                name,
                value,
                f"left out for {env_id} with env_backend {config.env_backend}",
                f"its slots are no Gymnasium environments{hint}",
            )


def _make_registered(
    name: str, num_slots: int, config: EnvironmentConfig, is_rendered: bool
) -> EnvironmentAdapter:
    """Returns slots of an environment that was passed as a Python object."""
    from impala_actor.environments.slots import make_slots
    from impala_actor.environments.wrappers import load_wrappers

    if name not in _makers:
        raise UnknownEnvironmentError(
            f"{name} is a Python object that was given to the class IMPALA; only that process and "
            "those it starts know it. From Python, go on with IMPALA(env, ...).load(RUN). For "
            "commands, register the environment in a module and name it: my_module:MyEnv-v0"
        )
    if config.env_backend not in ("auto", "sync", "async"):
        raise ConfigError(
            "env_backend", config.env_backend, "auto, sync or async", f"{name} has no other"
        )
    if config.env_kwargs:
        raise ConfigError(
            "env_kwargs", config.env_kwargs, f"left out for {name}", "its maker takes no arguments"
        )
    backend: Literal["sync", "async"] = "sync"
    if config.env_backend == "async" and not is_rendered:
        backend = "async"
    maker = _makers[name]

    def make_one() -> gymnasium.Env[Any, Any]:
        try:
            return maker()
        except FOREIGN_ERRORS as error:  # code of users may raise any error
            rule = "something that makes an environment"
            raise ConfigError("env", name, rule, f"{type(error).__name__}: {error}") from error

    return make_slots(name, make_one, num_slots, backend, load_wrappers(config.env_wrapper))
