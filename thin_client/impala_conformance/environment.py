"""Made-up observations of an environment, and a check of the actions that come back.

An environment is known by its specification alone: what the server says about shapes and ranges is
compared with it. numpy only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from impala_conformance.rule import require
from impala_rl.v1 import spec_pb2, tensor_pb2

Array = np.ndarray[Any, Any]  # Any: shapes and element types as the docstrings say


def make_default_environment() -> spec_pb2.EnvironmentSpec:
    """Returns that of CartPole-v1: four numbers, two choices."""
    leaf = tensor_pb2.TensorSpec(name="observation", dtype=tensor_pb2.DTYPE_FLOAT32, shape=[4])
    action = tensor_pb2.TensorSpec(name="action", dtype=tensor_pb2.DTYPE_INT64)
    part = spec_pb2.ActionPart(
        tensor=action, kind=spec_pb2.ACTION_KIND_CATEGORICAL, sizes=[2], starts=[0]
    )
    return spec_pb2.EnvironmentSpec(
        observation_leaves=[leaf], action=spec_pb2.ActionSpec(parts=[part])
    )


def dtype_of(tensor: tensor_pb2.TensorSpec) -> np.dtype[Any]:
    """Returns the element type of a tensor, little-endian."""
    name = tensor_pb2.DType.Name(tensor.dtype).removeprefix("DTYPE_").lower()
    return np.dtype(name).newbyteorder("<")


def find_mask(environment: spec_pb2.EnvironmentSpec) -> int | None:
    """Returns the index of the leaf that is a mask of legal actions, if there is one."""
    for index, leaf in enumerate(environment.observation_leaves):
        if leaf.role == tensor_pb2.TENSOR_ROLE_ACTION_MASK:
            return index
    return None


def count_logits(action: spec_pb2.ActionSpec) -> int:
    """Returns P, the number of policy logits."""
    num = 0
    for part in action.parts:
        if part.kind == spec_pb2.ACTION_KIND_CATEGORICAL:
            num += sum(part.sizes)
        else:
            components = math.prod(part.tensor.shape)
            num += components * (2 if part.kind == spec_pb2.ACTION_KIND_GAUSSIAN else 1)
    return num


class ObservationMaker:
    """Draws observations as clients of a policy server send them: frames are not stacked."""

    def __init__(self, environment: spec_pb2.EnvironmentSpec, seed: int = 0) -> None:
        """Draws for `environment`."""
        self._environment = environment
        self._random = np.random.default_rng(seed)
        self._skip = 1 if environment.frame_stack > 1 else 0

    def make(self, num: int) -> list[Array]:
        """Returns one array [num, ...] for each leaf."""
        mask = find_mask(self._environment)
        return [
            self._make_mask(num, leaf) if index == mask else self._make_leaf(num, leaf)
            for index, leaf in enumerate(self._environment.observation_leaves)
        ]

    def _make_leaf(self, num: int, leaf: tensor_pb2.TensorSpec) -> Array:
        shape, dtype = (num, *leaf.shape[self._skip :]), dtype_of(leaf)
        if dtype.kind == "f":
            return self._random.standard_normal(shape).astype(dtype)
        return self._random.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype)

    def _make_mask(self, num: int, leaf: tensor_pb2.TensorSpec) -> Array:
        """Each component has one legal choice or more."""
        mask = self._random.random((num, count_logits(self._environment.action))) < 0.3
        offset = 0
        for part in self._environment.action.parts:
            for size in part.sizes:
                legal = offset + self._random.integers(0, size, num)
                mask[np.arange(num), legal] = True
                offset += size
        return mask.reshape(num, *leaf.shape).astype(dtype_of(leaf))


def decode_actions(action: spec_pb2.ActionSpec, parts: list[bytes], num: int) -> list[Array]:
    """Returns one array [num, ...] for each part; raises ViolationError if they do not fit."""
    require(len(parts) == len(action.parts), f"{len(action.parts)} parts", len(parts))
    arrays = []
    for spec, data in zip(action.parts, parts, strict=True):
        shape, dtype = (num, *spec.tensor.shape), dtype_of(spec.tensor)
        num_bytes = math.prod(shape) * dtype.itemsize
        name = spec.tensor.name
        require(len(data) == num_bytes, f"{num_bytes} bytes of part {name}", len(data))
        array = np.frombuffer(data, dtype).reshape(shape)
        _require_range(spec, array.reshape(num, -1))
        arrays.append(array)
    return arrays


def find_illegal(environment: spec_pb2.EnvironmentSpec, mask: Array, actions: list[Array]) -> Array:
    """Returns bool [n]: in which slots a component of the action is not legal.

    Args:
      environment: all its parts are choices.
      mask: [n, P].
      actions: as `decode_actions` returns them.
    """
    flat, num = mask.reshape(len(mask), -1) != 0, len(mask)
    is_illegal = np.zeros(num, np.bool_)
    offset = 0
    for part, array in zip(environment.action.parts, actions, strict=True):
        chosen = array.reshape(num, -1).astype(np.int64) - np.array(part.starts, np.int64)
        for component, size in enumerate(part.sizes):
            is_illegal |= ~flat[np.arange(num), offset + chosen[:, component]]
            offset += size
    return is_illegal


def _require_range(spec: spec_pb2.ActionPart, values: Array) -> None:
    """Raises ViolationError unless each component [n, D] is in its range."""
    if spec.kind == spec_pb2.ACTION_KIND_CATEGORICAL:
        lows = np.array(spec.starts, np.float64)
        highs = lows + np.array(spec.sizes, np.float64) - 1
    elif spec.kind == spec_pb2.ACTION_KIND_BERNOULLI:
        lows, highs = np.zeros(values.shape[1]), np.ones(values.shape[1])
    else:
        lows, highs = np.array(spec.lows), np.array(spec.highs)
    numbers = values.astype(np.float64)
    tolerance = 1e-6 * np.maximum(1.0, np.abs(numbers)) * (values.dtype.kind == "f")
    is_in = (numbers >= lows - tolerance) & (numbers <= highs + tolerance)
    expected = f"{spec.tensor.name} from {lows.tolist()} to {highs.tolist()}"
    require(bool(is_in.all()), expected, values.tolist())
