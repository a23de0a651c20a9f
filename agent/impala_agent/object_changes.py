"""find_change: what a caller changed on an environment object after it was made.

An environment that knows how it was made (`env.spec`) is made anew in each actor, which is fast
and works for environments that cannot be copied. That would drop changes such as
`env.unwrapped.goal_velocity = .05`, so the object is compared with a new one first. What a reset
or step changes by itself is no change of the caller's.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

Env = gymnasium.Env[Any, Any]  # Any: any spaces

_NOT_COMPARED = frozenset({"env", "spec", "_cached_spec", "render_mode", "metadata"})
_MAX_DEPTH = 4
_MISSING = object()


def find_change(value: Env, fresh: Env) -> str | None:
    """Returns the name of the first attribute in which an environment differs from a new one.

    Args:
      value: as the caller passed it; nothing of it is called.
      fresh: made as `value` was, of the same spec; is reset and stepped here, so that what an
        episode changes is known.

    Returns:
      Such as "MountainCarContinuous.goal_velocity"; None where nothing differs.
    """
    layers, fresh_layers = _layers_of(value), _layers_of(fresh)
    if [type(layer) for layer in layers] != [type(layer) for layer in fresh_layers]:
        return "the wrappers around it"
    # A dump, since a reset may change arrays in place.
    before = [{name: _freeze(x) for name, x in vars(layer).items()} for layer in fresh_layers]
    _play(fresh)
    for layer, played, frozen in zip(layers, fresh_layers, before, strict=True):
        if isinstance(layer, PassiveEnvChecker | OrderEnforcing):
            continue  # they remember what has been called
        for name, attribute in vars(layer).items():
            if name in _NOT_COMPARED:
                continue
            known = frozen.get(name, _MISSING)
            now = _freeze(vars(played)[name]) if name in vars(played) else _MISSING
            if known is not now and (known is _MISSING or now is _MISSING or known != now):
                continue  # an episode changes it
            if known is _MISSING or _freeze(attribute) != known:
                return f"{type(layer).__name__}.{name}"
    return None


def _layers_of(env: Env) -> list[Env]:
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers


def _play(env: Env) -> None:
    """Makes a reset and a few steps; an environment that cannot is compared as it was made."""
    try:
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(3):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
    except Exception:
        return


def _freeze(value: Any, depth: int = 0) -> Any:
    """Returns what can be compared by == and stays as it is; equal for equal values."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return (type(value).__name__, repr(value))
    if isinstance(value, np.ndarray | np.generic):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, gymnasium.Space):
        return ("space", repr(value))
    if depth >= _MAX_DEPTH:
        return type(value).__qualname__
    if isinstance(value, list | tuple):
        return (type(value).__name__, tuple(_freeze(item, depth + 1) for item in value))
    if isinstance(value, dict):
        items = sorted((repr(key), _freeze(item, depth + 1)) for key, item in value.items())
        return ("dict", tuple(map(repr, items)))
    if isinstance(value, set | frozenset):
        return ("set", tuple(sorted(map(repr, value))))
    if callable(value) and hasattr(value, "__qualname__"):
        return ("callable", value.__module__, value.__qualname__)
    if hasattr(value, "__dict__") and vars(value):
        attributes = tuple(
            (name, _freeze(item, depth + 1)) for name, item in sorted(vars(value).items())
        )
        return (type(value).__qualname__, attributes)
    return type(value).__qualname__  # a native object: nobody can look into it
