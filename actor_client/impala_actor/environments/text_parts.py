"""WithoutText: leaves text out of observations that have other parts.

Networks take numbers, so MiniGrid's mission or a text adventure's words cannot be a leaf. In a
Dict or Tuple with parts that are no text, text is left out and a warning says so; an observation
that is text alone is refused by `impala_actor.environments.observations`. Runs where the slot runs.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

_LOG = logging.getLogger(__name__)

AnySpace = spaces.Space[Any]  # Any: values of any type
Prune = Callable[[Any], Any]


class WithoutText(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Leaves the text parts of a Dict or Tuple observation out."""

    def __init__(self, env: gymnasium.Env[Any, Any], space: AnySpace, prune: Prune) -> None:
        """Wraps `env`; `space` and `prune` are its observations without text."""
        super().__init__(env)
        self.observation_space = space
        self._prune = prune

    def observation(self, observation: Any) -> Any:
        """Returns the observation without text; one of another form unchanged."""
        return self._prune(observation)


def leave_out_text(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Returns `env` without the text parts of its observations; `env` itself if it has none."""
    names: list[str] = []
    kept = _without_text(env.observation_space, "observation", names)
    if kept is None or not names:
        return env
    _warn(", ".join(names))
    return WithoutText(env, *kept)


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


def _without_text(space: AnySpace, name: str, names: list[str]) -> tuple[AnySpace, Prune] | None:
    """Returns a space without text, and the function that takes text out of its values.

    None: nothing is left. Names of text parts are added to `names`. Values of another form than
    the space says are returned as they are: the slot's guard says what is wrong with them.
    """
    if _is_text(space):
        names.append(name)
        return None
    if isinstance(space, spaces.Dict) and space.spaces:
        parts = {key: _without_text(part, f"{name}/{key}", names) for key, part in space.items()}
        kept = {key: part for key, part in parts.items() if part is not None}
        left_out = parts.keys() - kept.keys()

        def prune_dict(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            return {
                key: kept[key][1](part) if key in kept else part
                for key, part in value.items()
                if key not in left_out
            }

        pruned = spaces.Dict({key: part for key, (part, _) in kept.items()})
        return (pruned, prune_dict) if kept else None
    if isinstance(space, spaces.Tuple) and space.spaces:
        items = [_without_text(part, f"{name}/{i}", names) for i, part in enumerate(space.spaces)]
        left = [(index, item) for index, item in enumerate(items) if item is not None]

        def prune_tuple(value: Any) -> Any:
            if not isinstance(value, tuple) or len(value) != len(items):
                return value
            return tuple(prune(value[index]) for index, (_, prune) in left)

        return (spaces.Tuple([part for _, (part, _) in left]), prune_tuple) if left else None
    return space, _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def _is_text(space: AnySpace) -> bool:
    """Returns whether a space's values are strings: Text, and own spaces of dtype str."""
    if isinstance(space, spaces.Text):
        return True
    try:
        return space.dtype is not None and np.dtype(space.dtype).kind == "U"
    except TypeError:  # a dtype that numpy does not know: the encoder says what is wrong
        return False
