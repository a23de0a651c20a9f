"""Packs unrolls as `UnrollBatch` messages and unpacks them.

`pack_unrolls` runs in the actor, `UnrollDecoder.decode` in the front end. The decoder checks every
unroll: its result agrees with the specification in number, type, shape and range, has the digest of
the message, and is finite.
No grpc, no torch.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from impala_common.codec.action_ranges import ActionRanges
from impala_common.codec.frames import UniqueFrames, join_frames
from impala_common.codec.tensors import digest_of, pack_into, unpack_tensor
from impala_common.errors import InvalidUnrollError
from impala_common.spec.specs import UnrollLeaf, UnrollSpec
from impala_rl.v1 import unroll_pb2 as pb

MAX_ABS_VALUE = 1e9
"""Largest absolute value in a leaf of floats: larger ones overflow float32 in the loss, or in its
gradient."""

Array = np.ndarray[Any, Any]
Leaves = dict[str, Array]
"""Leaf name -> [T, N, ...], [T+1, N, ...] or [N, ...], as UnrollSpec.leaves says."""


class Unrolls(NamedTuple):
    """Unrolls side by side, as an actor makes them and as the decoder returns them.

    Attributes:
      num_unrolls: N.
      leaves: every leaf by name, except a frame-stacked observation.
      frames: the frame-stacked observation, or None.
    """

    num_unrolls: int
    leaves: Leaves
    frames: UniqueFrames | None

    def stacked(self, spec: UnrollSpec) -> Leaves:
        """Returns every leaf of `spec` by name, with frames stacked."""
        if self.frames is None:
            return self.leaves
        return {spec.frame_leaf.name: join_frames(self.frames)} | self.leaves


def pack_unrolls(
    unrolls: Unrolls, spec: UnrollSpec, compress: bool, message: pb.UnrollBatch | None = None
) -> pb.UnrollBatch:
    """Returns a message with leaves, frames, unroll_count and digest; the sender sets the rest.

    Args:
      unrolls: every leaf of `spec`, of N environment slots.
      spec: specification of an unroll.
      compress: whether observations may be compressed.
      message: an empty message to fill, for instance part of a larger one; None: a new one.
    """
    message = pb.UnrollBatch() if message is None else message
    message.unroll_count = unrolls.num_unrolls
    num_observations = len(spec.environment.observation_leaves)
    data: list[bytes] = []
    frames_data: list[bytes] = []
    for position, leaf in enumerate(_leaves_of(spec)):
        tensor = message.leaves.add()
        if unrolls.frames is not None and position == 0:
            unique, frames = unrolls.frames, message.frames
            frames.frame_counts.extend(unique.counts.tolist())
            frames_data.append(pack_into(frames.unique_frames, unique.frames, compress))
            frames_data.append(pack_into(frames.frame_index, unique.frame_index, compress))
            continue
        array = unrolls.leaves[leaf.tensor.name]
        data.append(pack_into(tensor, array, compress and position < num_observations))
    message.digest = digest_of(data + frames_data)
    return message


@functools.lru_cache(8)
def _leaves_of(spec: UnrollSpec) -> tuple[UnrollLeaf, ...]:
    return spec.leaves


class UnrollDecoder:
    """Turns messages into checked arrays. Used by the front end only, on its event loop."""

    def __init__(self, spec: UnrollSpec, max_unrolls: int) -> None:
        """Prepares to decode unrolls of `spec`, at most `max_unrolls` in a message."""
        self._spec = spec
        self._max_unrolls = max_unrolls
        self._leaves = spec.leaves
        self._shapes: dict[int, list[tuple[int, ...]]] = {}  # by number of unrolls
        self._actions = ActionRanges(spec.environment.action)

    @property
    def max_unrolls(self) -> int:
        """Unrolls of one message at the most."""
        return self._max_unrolls

    @property
    def unroll_length(self) -> int:
        """Agent steps of one unroll, padding rows included."""
        return self._spec.unroll_length

    def decode(self, message: pb.UnrollBatch) -> Unrolls:
        """Returns the unrolls in `message`: checked, read-only.

        Raises:
          InvalidUnrollError: names the first difference to the specification.
        """
        num_unrolls = message.unroll_count
        if not 1 <= num_unrolls <= self._max_unrolls:
            raise InvalidUnrollError(
                f"unroll_count: expected 1 to {self._max_unrolls}, got {num_unrolls}"
            )
        if len(message.leaves) != len(self._leaves):
            raise InvalidUnrollError(
                f"leaves: expected {len(self._leaves)}, got {len(message.leaves)}"
            )
        if message.HasField("frames") != self._spec.uses_unique_frames:
            raise InvalidUnrollError(
                f"frames: expected {'set' if self._spec.uses_unique_frames else 'unset'}"
            )
        tensors = list(message.leaves)
        data = [tensor.data for tensor in tensors]  # once: each access copies
        frames_data: list[bytes] = []
        if self._spec.uses_unique_frames:
            stack = message.frames
            frames_data = [stack.unique_frames.data, stack.frame_index.data]
        if digest_of(data + frames_data) != message.digest:
            raise InvalidUnrollError("digest: the data was damaged on its way")
        shapes = self._shapes_of(num_unrolls)
        leaves: Leaves = {}
        frames = None
        for position, leaf in enumerate(self._leaves):
            name = leaf.tensor.name
            if self._spec.uses_unique_frames and position == 0:
                if tensors[position].ByteSize():
                    raise InvalidUnrollError(f"{name}: expected empty, frames takes its place")
                frames = self._decode_frames(message.frames, frames_data, leaf, num_unrolls)
                continue
            array = unpack_tensor(
                tensors[position], name, leaf.tensor.dtype, shapes[position], data[position]
            )
            require_bounded(name, array)
            leaves[name] = array
        self._actions.validate(leaves)
        return Unrolls(num_unrolls, leaves, frames)

    def _shapes_of(self, num_unrolls: int) -> list[tuple[int, ...]]:
        if num_unrolls not in self._shapes:  # at most max_unrolls of them
            length = self._spec.unroll_length
            self._shapes[num_unrolls] = [leaf.shape(length, num_unrolls) for leaf in self._leaves]
        return self._shapes[num_unrolls]

    def _decode_frames(
        self, message: pb.FrameStack, data: list[bytes], leaf: UnrollLeaf, num_unrolls: int
    ) -> UniqueFrames:
        spec = self._spec
        counts = np.array(message.frame_counts, np.int64)
        if len(counts) != num_unrolls or counts.min() < 1 or counts.max() > spec.max_frames:
            raise InvalidUnrollError(
                f"frame_counts: expected {num_unrolls} numbers in [1, {spec.max_frames}]"
            )
        frame_shape = (int(counts.sum()), *leaf.tensor.shape[1:])
        frames = unpack_tensor(
            message.unique_frames, "unique_frames", leaf.tensor.dtype, frame_shape, data[0]
        )
        require_bounded("unique_frames", frames)
        index_shape = (spec.unroll_length + 1, num_unrolls, spec.environment.frame_stack)
        index = unpack_tensor(message.frame_index, "frame_index", "int32", index_shape, data[1])
        if index.min() < 0 or bool((index >= counts[None, :, None]).any()):
            raise InvalidUnrollError("frame_index: points outside its unroll's frames")
        return UniqueFrames(frames, counts.astype(np.int32), index)


def require_bounded(name: str, array: Array) -> None:
    """Raises InvalidUnrollError unless all numbers are finite and at most MAX_ABS_VALUE."""
    if array.dtype.kind != "f" or array.size == 0:
        return
    largest = max(float(array.max()), -float(array.min()))  # NaN if one of the numbers is
    if largest <= MAX_ABS_VALUE:
        return
    if np.isfinite(largest):
        text = f"expected at most {MAX_ABS_VALUE:g} in absolute value, got {largest:.10g}"
    else:
        text = "expected finite numbers, got NaN or infinity"
    raise InvalidUnrollError(f"{name}: {text}", is_absurd=True)
