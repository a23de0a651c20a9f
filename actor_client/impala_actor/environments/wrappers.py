"""Applies --env-wrapper and --env-kwargs to single environments.

`--env-wrapper module:Wrapper` names a class or function that takes an environment and
returns one. Both options name code, so they belong to the actor: a learner never sends them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium

from impala_common.errors import FOREIGN_ERRORS, ConfigError
from impala_common.process.own_modules import hint_at_import_error, import_own_module

AnyEnv = gymnasium.Env[Any, Any]  # Any: environments of any spaces
Wrapper = Callable[[AnyEnv], AnyEnv]

_FORM = "module:Wrapper, such as gymnasium.wrappers:FlattenObservation"


def load_wrappers(names: Sequence[str]) -> tuple[Wrapper, ...]:
    """Returns the named wrappers; each raises ConfigError with its name if it fails.

    Raises:
      ConfigError: a name cannot be found, or is not callable.
    """
    return tuple(_Named(name, _load(name)) for name in names)


class _Named:
    """A wrapper and its name."""

    def __init__(self, name: str, wrapper: Wrapper) -> None:
        self._name = name
        self._wrapper = wrapper

    def __call__(self, env: AnyEnv) -> AnyEnv:
        """Wraps; raises ConfigError if that fails or does not return an environment."""
        rule = f"a wrapper that can be put around {env}"
        try:
            wrapped: object = self._wrapper(env)
        except FOREIGN_ERRORS as error:
            raise ConfigError("env_wrapper", self._name, rule, f"it raised {error!r}") from error
        if not isinstance(wrapped, gymnasium.Env):
            kind = type(wrapped).__name__
            raise ConfigError(
                "env_wrapper", self._name, rule, f"it returned {kind}, no gymnasium.Env"
            )
        return wrapped


def _load(name: str) -> Wrapper:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError("env_wrapper", name, _FORM)
    try:
        module = import_own_module(module_name)
    except FOREIGN_ERRORS as error:
        reason = f"{type(error).__name__}: {error}{hint_at_import_error(module_name, error)}"
        raise ConfigError(
            "env_wrapper", name, _FORM, f"module {module_name} cannot be imported: {reason}"
        ) from error
    try:
        wrapper = getattr(module, attribute)
    except AttributeError:
        close = difflib.get_close_matches(attribute, dir(module), n=3)
        hint = f"; close matches: {', '.join(close)}" if close else ""
        raise ConfigError(
            "env_wrapper", name, _FORM, f"{module_name} has no {attribute}{hint}"
        ) from None
    if not callable(wrapper):
        raise ConfigError("env_wrapper", name, _FORM, f"{attribute} is no class or function")
    called: Wrapper = wrapper
    return called
