"""Converts observation spaces to observation leaves, and observations to leaf values.

A plain space is the one leaf "observation"; Dict and Tuple are split, at any depth, into
"observation/key/0/...", in sorted order of name. docs/environments.md lists the result for each
kind of space. Used by the backends once per
environment, and by the adapter in every step. numpy and gymnasium only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from impala_actor.environments.adapter import Observations, without_negative_strides
from impala_actor.environments.old_gym import is_of_old_gym
from impala_common.errors import SpecMismatchError, UnsupportedSpaceError
from impala_common.spec.specs import (
    DTYPES,
    MAX_ELEMENTS,
    MAX_OBSERVATION_LEAVES,
    MAX_RANK,
    OBSERVATION,
    TensorSpec,
)

MAX_ONE_HOT = 4096
"""Widest one-hot leaf: 16 KiB, half of an Atari observation; rollout storage holds thousands."""

_WRAP = "--env-wrapper module:Wrapper puts a wrapper around the environment"
_SUPPORTED = (
    f"supported are Box (of {', '.join(DTYPES)}), Discrete, MultiDiscrete, MultiBinary, and Dict "
    "and Tuple of these"
)


@dataclasses.dataclass(frozen=True, slots=True)
class OneHot:
    """Encoding of integers as concatenated one-hot vectors.

    Attributes:
      starts: int64 [D]: smallest value of each.
      sizes: int64 [D]: number of values of each.
      offsets: int64 [D]: first index of each vector.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, starts: Any, sizes: Any) -> OneHot:  # Any: numbers or arrays of them
        """Makes the encoding of a Discrete or MultiDiscrete space."""
        flat = np.ravel(sizes).astype(np.int64)
        return cls(np.ravel(starts).astype(np.int64), flat, np.cumsum(flat) - flat)

    @property
    def width(self) -> int:
        """Total length of the vectors."""
        return int(self.sizes.sum())

    def encode(self, values: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Returns float32 [N, width] for integers [N, ...]."""
        places = values.reshape(len(values), -1).astype(np.int64) - self.starts
        if ((places < 0) | (places >= self.sizes)).any():
            first, last = self.starts.tolist(), (self.starts + self.sizes - 1).tolist()
            raise SpecMismatchError(
                f"{name} of the environment", f"integers from {first} to {last}", values.tolist()
            )
        encoded = np.zeros((len(values), self.width), np.float32)
        np.put_along_axis(encoded, places + self.offsets, np.float32(1.0), axis=1)
        return encoded


@dataclasses.dataclass(frozen=True, slots=True)
class ObservationPart:
    """One numeric part of an observation.

    Attributes:
      leaf: specification of its leaf.
      path: keys and indices that lead to it.
      shape: its shape in the environment.
      dtype: its element type in the environment.
      one_hot: encoding of its integers; None: the leaf is the part itself.
    """

    leaf: TensorSpec
    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    one_hot: OneHot | None

    def encode(self, observation: Any, num_slots: int) -> NDArray[Any]:
        """Returns the leaf [N, ...] out of a batch of raw observations."""
        values = self._find(observation)
        if not isinstance(values, np.ndarray):
            raise self._mismatch("", "an array", type(values).__name__)
        if values.shape != (num_slots, *self.shape):
            raise self._mismatch(".shape", (num_slots, *self.shape), values.shape)
        if self.one_hot is not None and np.issubdtype(values.dtype, np.integer):
            return self.one_hot.encode(values, self.leaf.name)
        if values.dtype != self.dtype:
            raise self._mismatch(".dtype", self.dtype.name, values.dtype.name)
        return without_negative_strides(values)

    def encode_one(self, observation: Any) -> NDArray[Any]:
        """Returns the leaf [...] out of one slot's raw observation, cast if no value changes.

        (Floats may be rounded.)
        """
        try:
            values = np.asarray(self._find(observation))
        except ValueError as error:
            raise self._mismatch("", "numbers", str(error)) from error
        if values.shape != self.shape:
            raise self._mismatch(".shape", self.shape, values.shape)
        if not np.can_cast(values.dtype, self.dtype, "same_kind"):
            raise self._mismatch(".dtype", self.dtype.name, values.dtype.name)
        given, values = values, values.astype(self.dtype, copy=False)[np.newaxis]
        if values.dtype.kind in "iu" and (values[0] != given).any():
            raise self._mismatch("", f"numbers that {self.dtype.name} holds", given.tolist())
        leaf: NDArray[Any] = values
        if self.one_hot is not None:
            leaf = self.one_hot.encode(values, self.leaf.name)
        return np.asarray(leaf[0])

    def is_narrowed(self, observation: Any) -> bool:
        """Returns whether `encode_one` may find integers of this type too large for the space's."""
        if self.dtype.kind not in "iu":
            return False
        return not np.can_cast(np.asarray(self._find(observation)).dtype, self.dtype)

    def _find(self, observation: Any) -> Any:
        for key in self.path:
            try:
                observation = observation[key]
            except (LookupError, TypeError) as error:
                has = (
                    f"one with {', '.join(map(repr, observation))}"
                    if isinstance(observation, dict)
                    else type(observation).__name__
                )
                raise self._mismatch("", f"an observation with {key!r}", has) from error
        return observation

    def _mismatch(self, what: str, expected: object, actual: object) -> SpecMismatchError:
        return SpecMismatchError(f"{self.leaf.name}{what} of the environment", expected, actual)


class ObservationEncoder:
    """Turns raw observations of one space into observation leaves."""

    def __init__(self, space: Space[Any], num_slots: int) -> None:
        """Prepares for batches of `num_slots`; raises UnsupportedSpaceError."""
        self._parts = list_observation_parts(space)
        self._num_slots = num_slots

    @property
    def is_needed(self) -> bool:
        """Whether the leaves differ from the raw observation."""
        (first, *others) = self._parts
        return bool(others) or bool(first.path) or first.one_hot is not None

    def __call__(self, observation: Any) -> Observations:
        """Returns leaf name -> [N, ...] for a batch of raw observations."""
        slots = self._num_slots
        return {part.leaf.name: part.encode(observation, slots) for part in self._parts}

    def encode_one(self, observation: Any) -> Observations:
        """Returns leaf name -> [...] for one slot's raw observation."""
        return {part.leaf.name: part.encode_one(observation) for part in self._parts}


def list_observation_parts(space: Space[Any]) -> tuple[ObservationPart, ...]:
    """Returns the parts of an observation space in sorted order of leaf name.

    Raises:
      UnsupportedSpaceError: names the part that cannot be used, and a workaround.
    """
    parts = sorted(_walk(space, (), OBSERVATION), key=lambda part: part.leaf.name)
    if len(parts) > MAX_OBSERVATION_LEAVES:
        raise UnsupportedSpaceError(
            f"the observation space has {len(parts)} parts and must have at most "
            f"{MAX_OBSERVATION_LEAVES}: gymnasium.wrappers:FlattenObservation makes one Box of "
            f"them ({_WRAP})"
        )
    return tuple(parts)


def _walk(space: Space[Any], path: tuple[str | int, ...], name: str) -> Iterator[ObservationPart]:
    if isinstance(space, spaces.Dict):
        if not space.spaces:
            raise _refuse(space, name, "has no parts")
        for key, part in space.spaces.items():
            if not isinstance(key, str) or not key:
                raise _refuse(space, name, f"has the key {key!r}: keys must be strings, not empty")
            yield from _walk(part, (*path, key), f"{name}/{_escape(key)}")
    elif isinstance(space, spaces.Tuple):
        if not space.spaces:
            raise _refuse(space, name, "has no parts")
        for index, part in enumerate(space.spaces):
            yield from _walk(part, (*path, index), f"{name}/{index}")
    else:
        yield _make_part(space, path, name)


def _make_part(space: Space[Any], path: tuple[str | int, ...], name: str) -> ObservationPart:
    one_hot: OneHot | None = None
    if isinstance(space, spaces.Discrete):
        one_hot = OneHot.of(space.start, space.n)
    elif isinstance(space, spaces.MultiDiscrete):
        one_hot = OneHot.of(getattr(space, "start", np.zeros_like(space.nvec)), space.nvec)
    elif not isinstance(space, spaces.Box | spaces.MultiBinary):
        raise _refuse(space, name, "is not supported")
    assert space.shape is not None
    assert space.dtype is not None
    shape, dtype = tuple(int(size) for size in space.shape), np.dtype(space.dtype)
    if 0 in shape:
        raise _refuse(space, name, "has no elements: leave it out")
    if one_hot is not None:
        if one_hot.width > MAX_ONE_HOT:
            raise _refuse(
                space,
                name,
                f"would be one-hot vectors of {one_hot.width} numbers, more than {MAX_ONE_HOT}: "
                "turn it into a Box of features, or a MultiDiscrete of smaller parts",
            )
        return ObservationPart(
            TensorSpec(name, (one_hot.width,), "float32"), path, shape, dtype, one_hot
        )
    if dtype.name not in DTYPES:
        raise _refuse(space, name, f"has the element type {dtype.name}")
    if len(shape) > MAX_RANK or math.prod(shape) > MAX_ELEMENTS:
        raise _refuse(
            space, name, f"may have at most {MAX_RANK} dimensions and {MAX_ELEMENTS} elements"
        )
    return ObservationPart(TensorSpec(name, shape, dtype.name), path, shape, dtype, None)


def _refuse(space: object, name: str, reason: str) -> UnsupportedSpaceError:
    if is_of_old_gym(space):
        reason = "is a space of the old Gym package, not of Gymnasium"
    text = str(space)
    text = text if len(text) <= 120 else f"{text[:117]}..."
    return UnsupportedSpaceError(
        f"{name} of the observation space, {text}, {reason}; {_SUPPORTED}. {_WRAP} that leaves "
        "this part out or turns it into numbers"
    )


def _escape(key: str) -> str:
    """Returns a key as a part of a leaf name: plain ASCII without slashes."""
    return quote(key, safe=" ", errors="surrogatepass")
