"""Converts action spaces to an ActionSpec, and flat actions to a step's arguments.

`make_action_spec` flattens a Gymnasium action space to parts, or refuses it and names the part.
`ActionDecoder` turns the flat actions [N, ...] of all slots into the batch that a vector
environment's `step` takes. The order of parts is fixed: Dict by sorted key, Tuple by position.
Called by the backends; runs on the actor's main thread.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from impala_actor.environments.adapter import DecodeActions
from impala_common.errors import UnsupportedSpaceError
from impala_common.spec.action_decoding import PartDecoder, escape_key, split_parts
from impala_common.spec.action_spec import ACTION, MAX_POLICY_LOGITS, ActionPart, ActionSpec
from impala_common.spec.tensor_spec import DTYPES

Array = NDArray[Any]  # Any: each part has the dtype its spec names

MAX_INTEGER_CHOICES = 1024
"""An integer Box of more values than this per component is refused."""


def make_action_spec(space: spaces.Space[Any]) -> ActionSpec:
    """Returns the parts of a (single-slot) action space.

    Raises:
      UnsupportedSpaceError: names the part that cannot be trained on, and a workaround.
    """
    parts = tuple(_make_part(name, leaf) for name, leaf in _walk(ACTION, space))
    if not parts:
        raise UnsupportedSpaceError(f"action space {space} has no parts: there is nothing to learn")
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise UnsupportedSpaceError(
                f"{name}: two parts of the action space have this name; rename a key"
            )
    spec = ActionSpec(parts)
    if spec.num_logits > MAX_POLICY_LOGITS:
        raise UnsupportedSpaceError(
            f"action space {space} needs {spec.num_logits} logits, at most {MAX_POLICY_LOGITS} "
            "are possible; a wrapper that offers fewer choices is the way round"
        )
    return spec


def make_decode_actions(space: spaces.Space[Any], spec: ActionSpec) -> DecodeActions | None:
    """Returns a decoder of flat actions for `space`, or None if both forms are equal."""
    part = spec.parts[0]
    is_plain = isinstance(space, spaces.Discrete) and part.dtype == "int64"
    if is_plain and part.starts == (0,):
        return None
    return ActionDecoder(space, spec)


class ActionDecoder:
    """Turns flat actions into a batch of `space`: an array, or a dict or tuple of batches.

    Args:
      space: the (single-slot) action space.
      spec: its parts, from `make_action_spec`.
    """

    def __init__(self, space: spaces.Space[Any], spec: ActionSpec) -> None:
        self._space = space
        self._is_single = spec.is_single_categorical
        self._decoders = [(place, PartDecoder(part)) for place, part in split_parts(spec)]

    def __call__(self, actions: Array) -> Any:  # Any: as the space is nested
        """Returns the batch for int64 or float32 [N, ...] flat actions."""
        rows = actions[:, None] if self._is_single else actions
        leaves = [decode(rows[:, place]) for place, decode in self._decoders]
        return _assemble(self._space, iter(leaves))


def _walk(name: str, space: spaces.Space[Any]) -> list[tuple[str, spaces.Space[Any]]]:
    """Returns the leaves of a space with their names, in order."""
    if not _is_nested(space):
        return [(name, space)]
    is_dict = isinstance(space, spaces.Dict)
    return [
        leaf
        for key, child in _children(space)
        for leaf in _walk(f"{name}/{escape_key(str(key)) if is_dict else key}", child)
    ]


def _is_nested(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Dict | spaces.Tuple)


def _children(space: Any) -> list[tuple[Any, spaces.Space[Any]]]:  # Any: Dict or Tuple
    """Returns the children of a Dict or Tuple, in the fixed order."""
    if isinstance(space, spaces.Dict):
        return sorted(space.spaces.items(), key=lambda item: str(item[0]))
    return list(enumerate(space.spaces))


def _assemble(space: spaces.Space[Any], leaves: Any) -> Any:  # Any: an iterator of arrays
    """Returns the leaves in the form of `space`."""
    if not _is_nested(space):
        return next(leaves)
    values = {key: _assemble(child, leaves) for key, child in _children(space)}
    if isinstance(space, spaces.Tuple):
        return tuple(values.values())
    return {key: values[key] for key in space.spaces}  # type: ignore[attr-defined]


def _make_part(name: str, space: spaces.Space[Any]) -> ActionPart:
    dtype = space.dtype.name if space.dtype is not None else ""
    if space.shape is not None and dtype in DTYPES and math.prod(space.shape) > 0:
        shape = tuple(int(size) for size in space.shape)
        if isinstance(space, spaces.Discrete):
            return ActionPart(
                name, "categorical", shape, dtype, (int(space.n),), (int(space.start),)
            )
        if isinstance(space, spaces.MultiDiscrete):
            sizes = tuple(int(size) for size in np.ravel(space.nvec))
            starts = tuple(int(start) for start in np.ravel(space.start))
            return ActionPart(name, "categorical", shape, dtype, sizes, starts)
        if isinstance(space, spaces.MultiBinary):
            return ActionPart(name, "bernoulli", shape, dtype)
        if isinstance(space, spaces.Box):
            make = _make_gaussian if space.dtype.kind == "f" else _make_integers
            return make(name, space, shape, dtype)
    raise UnsupportedSpaceError(
        f"{name}: action space {space} is not supported. Supported are Discrete, MultiDiscrete, "
        "MultiBinary and Box, and Dict and Tuple of these. The way round: a "
        "gymnasium.ActionWrapper that offers one of them and translates"
    )


def _make_gaussian(name: str, space: spaces.Box, shape: tuple[int, ...], dtype: str) -> ActionPart:
    lows, highs = (
        tuple(float(bound) for bound in np.ravel(bounds)) for bounds in (space.low, space.high)
    )
    return ActionPart(name, "gaussian", shape, dtype, lows=lows, highs=highs)


def _make_integers(name: str, space: spaces.Box, shape: tuple[int, ...], dtype: str) -> ActionPart:
    """Returns an integer Box as choices: one for each value of a component."""
    lows = [int(low) for low in np.ravel(space.low)]
    sizes = [int(high) - low + 1 for low, high in zip(lows, np.ravel(space.high), strict=True)]
    if max(sizes) > MAX_INTEGER_CHOICES or min(sizes) < 1:
        raise UnsupportedSpaceError(
            f"{name}: a component of {space} has {max(sizes)} values; an integer Box is taken for "
            f"a choice of its values, at most {MAX_INTEGER_CHOICES}. The way round: a "
            "gymnasium.ActionWrapper with a float Box that rounds, or with fewer choices"
        )
    return ActionPart(name, "categorical", shape, dtype, tuple(sizes), tuple(lows))
