"""WithoutText: leaves text out of observations that have other parts.

Networks take numbers, so MiniGrid's mission or a text adventure's words cannot be a leaf. In a
Dict or Tuple with parts that are no text, text is left out and a warning says so; an observation
that is text alone is refused by `impala_actor.environments.observations`. Runs where the slot runs.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

_LOG = logging.getLogger(__name__)

AnySpace = spaces.Space[Any]  # Any: values of any type


class WithoutText(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Leaves the text parts of a Dict or Tuple observation out."""

    def __init__(self, env: gymnasium.Env[Any, Any], space: AnySpace) -> None:
        """Wraps `env`; `space` is its observation space without text, as `leave_out_text` made."""
        super().__init__(env)
        self.observation_space = space

    def observation(self, observation: Any) -> Any:
        """Returns the parts of `observation` that its space still has."""
        return _prune(observation, self.env.observation_space, self.observation_space)


def leave_out_text(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Returns `env` without the text parts of its observations; `env` itself if it has none."""
    names: list[str] = []
    space = _prune_space(env.observation_space, "observation", names)
    if space is None or not names:
        return env
    _warn(", ".join(names))
    return WithoutText(env, space)


@functools.cache
def _warn(names: str) -> None:
    """Logs a warning, once per process; slots with processes of their own leave it to the actor."""
    if multiprocessing.parent_process() is None:
        _LOG.warning(
            "%s is text and is left out: networks take numbers. Where the task needs it, "
            "--env-wrapper module:Wrapper puts a wrapper around the environment that turns it "
            "into numbers",
            names,
        )


def _prune_space(space: AnySpace, name: str, names: list[str]) -> AnySpace | None:
    """Returns a space without text, None if nothing is left; adds text's names to `names`."""
    if _is_text(space):
        names.append(name)
        return None
    if isinstance(space, spaces.Dict) and space.spaces:
        parts = {key: _prune_space(part, f"{name}/{key}", names) for key, part in space.items()}
        kept = {key: part for key, part in parts.items() if part is not None}
        return spaces.Dict(kept) if kept else None
    if isinstance(space, spaces.Tuple) and space.spaces:
        items = [_prune_space(part, f"{name}/{i}", names) for i, part in enumerate(space.spaces)]
        left = [part for part in items if part is not None]
        return spaces.Tuple(left) if left else None
    return space


def _is_text(space: AnySpace) -> bool:
    """Returns whether a space's values are strings: Text, and own spaces of dtype str."""
    if isinstance(space, spaces.Text):
        return True
    try:
        return space.dtype is not None and np.dtype(space.dtype).kind == "U"
    except TypeError:  # a dtype that numpy does not know: the encoder says what is wrong
        return False


def _prune(value: Any, full: AnySpace, kept: AnySpace) -> Any:
    """Returns `value` without the parts that `kept` lacks; one of another form unchanged."""
    if isinstance(full, spaces.Dict) and isinstance(kept, spaces.Dict) and isinstance(value, dict):
        return {
            key: _prune(part, full[key], kept[key]) if key in kept.spaces else part
            for key, part in value.items()
            if key in kept.spaces or key not in full.spaces
        }
    if not (isinstance(full, spaces.Tuple) and isinstance(kept, spaces.Tuple)):
        return value
    if isinstance(value, tuple) and len(value) == len(full.spaces):
        rest = iter(kept.spaces)
        return tuple(
            _prune(part, space, next(rest))
            for part, space in zip(value, full.spaces, strict=True)
            if _prune_space(space, "", []) is not None
        )
    return value
