"""Made-up unrolls that fit what a learner said at Register. numpy and xxhash only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xxhash

from impala_conformance.environment import Array, dtype_of, find_mask
from impala_rl.v1 import learner_pb2, spec_pb2, tensor_pb2, unroll_pb2


class UnrollMaker:
    """Draws unrolls of one environment; episodes neither begin nor end in them."""

    def __init__(
        self, environment: spec_pb2.EnvironmentSpec, registered: learner_pb2.RegisterResponse
    ) -> None:
        """Draws as `registered` demands."""
        self._environment = environment
        self._unroll = registered.unroll
        self._random = np.random.default_rng(0)
        mask = find_mask(environment)
        leaves = environment.observation_leaves
        self._mask_name = None if mask is None else leaves[mask].name
        self._observations = {leaf.name for leaf in leaves}

    def make(self, num: int) -> unroll_pb2.UnrollBatch:
        """Returns a message of `num` unrolls, without sender, number, version and digest."""
        message = unroll_pb2.UnrollBatch(unroll_count=num)
        for leaf in self._unroll.leaves:
            name, tensor = leaf.tensor.name, leaf.tensor
            if name in self._observations and self._unroll.uses_unique_frames:
                message.leaves.add()  # empty: the frames take its place
                self._add_frames(message, tensor, num)
                continue
            rows = (leaf.rows,) if leaf.rows else ()
            shape = (*rows, num, *tensor.shape)
            message.leaves.append(pack(self._make_leaf(name, tensor, shape), tensor.dtype))
        return message

    def _make_leaf(self, name: str, tensor: tensor_pb2.TensorSpec, shape: Any) -> Array:
        dtype: Any = dtype_of(tensor)
        values: Array = np.zeros(shape, dtype)
        if name == self._mask_name:
            values = np.ones(shape, dtype)
        elif name == "actions":
            values = self._make_actions(shape).astype(dtype)
        elif name == "rewards" or (name in self._observations and dtype.kind == "f"):
            values = self._random.standard_normal(shape).astype(dtype)
        elif name in self._observations:
            values = self._random.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype)
        return values

    def _make_actions(self, shape: tuple[int, ...]) -> Array:
        """Returns flat actions [T, N] or [T, N, D]: choices from 0, or numbers as drawn."""
        actions = np.zeros((*shape[:2], max(math.prod(shape[2:]), 1)))
        start = 0
        for part in self._environment.action.parts:
            for component in range(max(math.prod(part.tensor.shape), 1)):
                if part.kind == spec_pb2.ACTION_KIND_GAUSSIAN:
                    drawn: Array = self._random.standard_normal(shape[:2])
                else:
                    size = part.sizes[component] if part.sizes else 2
                    drawn = self._random.integers(0, size, shape[:2])
                actions[..., start] = drawn
                start += 1
        return actions.reshape(shape)

    def _add_frames(
        self, message: unroll_pb2.UnrollBatch, tensor: tensor_pb2.TensorSpec, num: int
    ) -> None:
        """Adds T + S distinct frames of each unroll, and the stacks that move over them."""
        rows, stack = self._unroll.unroll_length + 1, tensor.shape[0]
        count = rows + stack - 1
        shape = (num * count, *tensor.shape[1:])
        frames = self._random.integers(0, 100, shape).astype(dtype_of(tensor))
        places = np.arange(rows)[:, None, None] + np.arange(stack)
        index = np.broadcast_to(places, (rows, num, stack)).astype("<i4")
        message.frames.unique_frames.CopyFrom(pack(frames, tensor.dtype))
        message.frames.frame_counts.extend([count] * num)
        message.frames.frame_index.CopyFrom(pack(index, tensor_pb2.DTYPE_INT32))


def pack(array: Array, dtype: Any) -> tensor_pb2.Tensor:
    """Returns an array as plain bytes on the wire."""
    return tensor_pb2.Tensor(
        dtype=dtype, shape=array.shape, data=np.ascontiguousarray(array).tobytes()
    )


def set_digest(message: unroll_pb2.UnrollBatch) -> None:
    """Sets the digest of all data in the message."""
    digest = xxhash.xxh3_64()
    for tensor in message.leaves:
        digest.update(tensor.data)
    if message.HasField("frames"):
        digest.update(message.frames.unique_frames.data)
        digest.update(message.frames.frame_index.data)
    message.digest = digest.intdigest()


def compute_digest(data: bytes) -> int:
    """Returns xxh3-64 of `data`."""
    return xxhash.xxh3_64(data).intdigest()
