"""StorageLayout: offsets of all arrays in a batch slot.

A pure function of the unroll's specification, B and the number of slots, so the front end and the
learner compute the same offsets from the same numbers. A slot holds one batch: every leaf `[T+1, B,
...]`, `[T, B, ...]`
or `[B, ...]`; a frame-stacked observation as `frames [B, F, frame...]` and
`frame_index [T+1, B, S]`; and for each column the policy version that acted, and its origin: actor,
session, message and place in the message. numpy only.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from impala_common.spec.specs import UnrollSpec

FRAMES = "frames"
FRAME_INDEX = "frame_index"
POLICY_VERSION = "policy_version"
ORIGIN = "origin"
_ALIGNMENT = 64

Array = np.ndarray[Any, Any]
SlotViews = dict[str, Array]
"""Leaf name -> writable view into the slot."""


class UnrollOrigin(NamedTuple):
    """The message that unrolls came in; a column stores this and its place in the message."""

    actor_index: int
    session_epoch: int
    sequence_number: int


class _Field(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


class StorageLayout:
    """Offsets of all leaves in all batch slots. Immutable."""

    def __init__(self, spec: UnrollSpec, batch_size: int, num_batch_slots: int) -> None:
        """Computes the layout of `num_batch_slots` slots of `batch_size` unrolls each."""
        self.spec = spec
        self.batch_size = batch_size
        self.num_batch_slots = num_batch_slots
        self._fields: list[_Field] = []
        offset = 0
        for name, dtype, shape in self._named_shapes():
            self._fields.append(_Field(name, dtype, shape, offset))
            num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            offset += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        self.slot_bytes = offset
        self.num_bytes = offset * num_batch_slots
        self.time_major = {
            leaf.tensor.name: leaf.rows != "none"
            for leaf in spec.leaves
            if not (spec.uses_unique_frames and leaf.tensor == spec.frame_leaf)
        }
        """Whether a leaf's batch dimension is 1 (after time) or 0, for every leaf but frames."""

    def _named_shapes(self) -> list[tuple[str, str, tuple[int, ...]]]:
        spec, batch_size = self.spec, self.batch_size
        named: list[tuple[str, str, tuple[int, ...]]] = []
        for position, leaf in enumerate(spec.leaves):
            if spec.uses_unique_frames and position == 0:
                frame_shape = leaf.tensor.shape[1:]
                frames = (batch_size, spec.max_frames, *frame_shape)
                index = (spec.unroll_length + 1, batch_size, spec.environment.frame_stack)
                named += [(FRAMES, leaf.tensor.dtype, frames), (FRAME_INDEX, "int32", index)]
                continue
            shape = leaf.shape(spec.unroll_length, batch_size)
            named.append((leaf.tensor.name, leaf.tensor.dtype, shape))
        named += [(POLICY_VERSION, "int64", (batch_size,)), (ORIGIN, "int64", (batch_size, 4))]
        return named

    def make_views(self, buffer: memoryview) -> list[SlotViews]:
        """Returns, for each slot, views of its leaves in `buffer`."""
        return [
            {
                field.name: np.ndarray(
                    field.shape, field.dtype, buffer, slot * self.slot_bytes + field.offset
                )
                for field in self._fields
            }
            for slot in range(self.num_batch_slots)
        ]
