"""Converts the `env` argument (id, function, Env, VectorEnv) to what actors can make.

An id stays an id. A factory, a gymnasium.Env or a vector environment becomes a
maker with a name ("object:CartPole-v1"), known in this process and packed for
the actors. Each is made once here, which reports errors at construction and gives the spaces.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium

from impala_actor.environments.factory import (
    is_registered,
    make_environment,
    register_environment,
)
from impala_actor.environments.old_gym import HOW_TO_WRAP
from impala_agent.class_changes import warn_of_class_changes
from impala_agent.object_changes import find_change
from impala_common.config.checks import OBJECT_PREFIX
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import ConfigError, ImpalaError, SpecMismatchError
from impala_common.process.passed_objects import Kind, pack_object, unpack_object
from impala_common.spec.specs import EnvironmentSpec, validate_same_environment

Env = gymnasium.Env[Any, Any]  # Any: any spaces
Maker = Callable[[], Env]
_WAY_ROUND = "Pass a factory that makes the environment: IMPALA(lambda: MyEnv(...))"


@dataclasses.dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """An environment that this process and its children can make.

    Attributes:
      name: argument of make_environment: an id, or "object:" and a word.
      spec: its specification.
      objects: packed objects with which child processes make it, by kind and name.
      num_slots: number of environments in the given vector environment; None for other values.
    """

    name: str
    spec: EnvironmentSpec
    objects: dict[tuple[Kind, str], bytes]
    num_slots: int | None = None

    @property
    def title(self) -> str:
        """Its name in messages and folders."""
        return self.name.removeprefix(OBJECT_PREFIX)


def make_source(argument: str, value: object, config: EnvironmentConfig) -> EnvironmentSource:
    """Returns the source for a value of `env` or `eval_env`.

    Args:
      argument: name of the argument, for messages.
      value: an id, a factory, a gymnasium.Env or a VectorEnv.
      config: settings of environments given by id.

    Raises:
      ConfigError: it is of another type, fails, or cannot be copied to actors.
      UnknownEnvironmentError, MissingExtraError: the id is unknown on this machine.
      UnsupportedSpaceError: spaces that this version cannot train on.
    """
    if isinstance(value, str):
        return _from_id(argument, value, config)
    if isinstance(value, gymnasium.vector.VectorEnv):
        return _from_vector(argument, value, config)
    if isinstance(value, gymnasium.Env):
        return _from_env(argument, value, config)
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        return _from_maker(argument, "factory" if name == "<lambda>" else name, value, config)
    hint = "an id, a factory, a gymnasium.Env or a gymnasium.vector.VectorEnv"
    more = ""
    if hasattr(value, "reset") and hasattr(value, "step"):
        more = (
            f"{type(value).__module__}.{type(value).__qualname__} has reset and step but is no "
            f"gymnasium.Env. {HOW_TO_WRAP}"
        )
    raise ConfigError(argument, value, hint, more)


def validate_same_spaces(env: EnvironmentSource, eval_env: EnvironmentSource) -> None:
    """Raises ConfigError, with the first difference between the two environments' spaces."""
    try:
        validate_same_environment(env.spec, eval_env.spec)
    except SpecMismatchError as error:
        raise ConfigError(
            "eval_env",
            eval_env.title,
            f"an environment that looks like env ({env.title})",
            str(error),
        ) from error


def _from_id(argument: str, env_id: str, config: EnvironmentConfig) -> EnvironmentSource:
    if env_id.startswith(OBJECT_PREFIX) and not is_registered(env_id):
        raise ConfigError(
            argument, env_id, "an id or an object", "names of objects are given by this class"
        )
    objects: dict[tuple[Kind, str], bytes] = {}
    spec = gymnasium.registry.get(env_id)
    if spec is not None and not _is_importable(spec):
        objects["registration", env_id] = pack_object(argument, spec, _WAY_ROUND)
    return EnvironmentSource(env_id, _probe(env_id, config), objects)


def _is_importable(spec: gymnasium.envs.registration.EnvSpec) -> bool:
    """Returns whether a process that imports only gymnasium knows this id."""
    entry_point = spec.entry_point
    return isinstance(entry_point, str) and entry_point.startswith("gymnasium.")


def _from_vector(
    argument: str,
    value: gymnasium.vector.VectorEnv[Any, Any, Any],  # Any: any spaces
    config: EnvironmentConfig,
) -> EnvironmentSource:
    if isinstance(value, gymnasium.vector.VectorWrapper):
        raise ConfigError(
            argument,
            value,
            "a vector environment without wrappers around it",
            f"{type(value).__name__} works on all environments at once, but each actor makes its "
            "own: wrap the single environments instead",
        )
    _require_unchanged(argument, value)
    makers = getattr(value, "env_fns", None)
    if makers:
        title = _title_of(value.spec) or "vector"
        first = getattr(value, "envs", [None])[0]
        title = _title_of(getattr(first, "spec", None)) or title
        maker = makers[0] if len(makers) == 1 else MakersInTurn(makers)
        source = _from_maker(argument, title, maker, config)
    elif value.spec is not None:
        spec = _single_spec(value.spec)
        source = _from_spec(argument, spec, config, value.single_observation_space)
    else:
        raise ConfigError(
            argument,
            value,
            "a vector environment that says what it is made of (env_fns or spec)",
            f"{type(value).__name__} has neither. {_WAY_ROUND}",
        )
    return dataclasses.replace(source, num_slots=value.num_envs)


def _single_spec(spec: gymnasium.envs.registration.EnvSpec) -> gymnasium.envs.registration.EnvSpec:
    """Returns the spec of one of the environments that make_vec made by `spec`."""
    spec = copy.deepcopy(spec)
    for name in ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers"):
        spec.kwargs.pop(name, None)
    spec.max_episode_steps = spec.kwargs.pop("max_episode_steps", spec.max_episode_steps)
    return spec


def _from_env(argument: str, value: Env, config: EnvironmentConfig) -> EnvironmentSource:
    warn_of_class_changes(argument, value)
    spec = None
    with contextlib.suppress(Exception):  # a wrapper without a record of its arguments
        spec = value.spec
    change = None
    if spec is not None:
        with contextlib.suppress(Exception):  # then it is copied as it is
            change = _find_change(value, spec)
            if change is None:
                return _from_spec(argument, spec, config, value.observation_space)
    why = "" if change is None else f"{change} was changed, so that it cannot be made anew. "
    data = pack_object(argument, value, why + _WAY_ROUND)
    title = _title_of(spec) or type(value.unwrapped).__name__
    maker = functools.partial(unpack_object, f"{argument} ({title})", data)
    return _from_maker(argument, title, maker, config)


def _find_change(value: Env, spec: gymnasium.envs.registration.EnvSpec) -> str | None:
    """Returns what differs from an environment that is made anew; None where nothing does."""
    fresh = gymnasium.make(copy.deepcopy(spec))
    try:
        return find_change(value, fresh)
    finally:
        with contextlib.suppress(Exception):
            fresh.close()


def _require_unchanged(
    argument: str,
    value: gymnasium.vector.VectorEnv[Any, Any, Any],  # Any: any spaces
) -> None:
    """Raises ConfigError where actors would make other environments than these.

    Raises:
      ConfigError: names what was changed; a vector environment's parts are always made anew.
    """
    parts = list(getattr(value, "envs", ()))
    for one in parts[:1]:
        warn_of_class_changes(argument, one)
    makers = list(getattr(value, "env_fns", ()))
    pairs: list[tuple[Any, Callable[[], Any]]] = list(zip(parts, makers, strict=False))
    if not makers and value.spec is not None:
        spec = copy.deepcopy(value.spec)
        pairs = [(value, functools.partial(gymnasium.make_vec, spec))]
    for one, make in pairs:
        fresh = None
        change = None
        with contextlib.suppress(Exception):  # a maker that works once: nothing to compare with
            fresh = make()
            change = find_change(one, fresh)
        with contextlib.suppress(Exception):
            if fresh is not None:
                fresh.close()
        if change is not None:
            raise ConfigError(
                argument,
                value,
                "a vector environment whose environments are as they were made",
                f"{change} was changed, and actors make their own. {_WAY_ROUND}",
            )


def _from_spec(
    argument: str,
    spec: gymnasium.envs.registration.EnvSpec,
    config: EnvironmentConfig,
    observation_space: gymnasium.Space[Any],  # Any: any space
) -> EnvironmentSource:
    """Returns a source of the environment in `spec`, by its id if that gives the same."""
    spec = copy.deepcopy(spec)
    maker = functools.partial(gymnasium.make, spec)
    with contextlib.closing(maker()) as made:
        if made.observation_space != observation_space:
            raise ConfigError(argument, spec.id, "made anew by its spec", "its spaces would differ")
    source = _from_maker(argument, spec.id, maker, config)
    if gymnasium.registry.get(spec.id) == spec:
        with contextlib.suppress(ImpalaError):
            by_id = _from_id(argument, spec.id, config)
            # Else the id is a preprocessed environment, such as Atari's.
            if by_id.spec == source.spec:
                return by_id
    return source


def _from_maker(
    argument: str, title: str, maker: Maker, config: EnvironmentConfig
) -> EnvironmentSource:
    data = pack_object(argument, maker, _WAY_ROUND)
    name = _register(title, maker)
    return EnvironmentSource(name, _probe(name, config), {("environment", name): data})


def _register(title: str, maker: Maker) -> str:
    """Registers `maker` in this process under a unique name and returns the name."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.")[:48] or "environment"
    numbered = (f"{OBJECT_PREFIX}{word}-{number}" for number in itertools.count(2))
    for name in itertools.chain([f"{OBJECT_PREFIX}{word}"], numbered):
        if not is_registered(name):
            break
    register_environment(name, maker)
    return name


def _probe(name: str, config: EnvironmentConfig) -> EnvironmentSpec:
    """Returns the environment's specification; makes one and closes it."""
    with contextlib.closing(make_environment(name, 1, config)) as environment:
        return environment.spec


def _title_of(spec: gymnasium.envs.registration.EnvSpec | None) -> str:
    return "" if spec is None else spec.id


class MakersInTurn:
    """Makes the environments of a vector environment in turn, repeatedly.

    An actor with as many slots as makers gets one of each.
    """

    def __init__(self, makers: Iterable[Maker]) -> None:
        """Starts with the first of `makers`."""
        self._makers = tuple(makers)
        self._num_made = 0

    def __call__(self) -> Env:
        """Makes the next one."""
        maker = self._makers[self._num_made % len(self._makers)]
        self._num_made += 1
        return maker()
