"""UnrollRing: the newest unrolls that were taken into training, for replay.

Owned by the replay source, used under its lock. Memory of a fixed size on the learner's
device, allocated with the first batch; the oldest unrolls are overwritten.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impala_common.spec.specs import UnrollSpec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.parts import map_columns

Places = np.ndarray[Any, np.dtype[np.int64]]


def count_unroll_bytes(spec: UnrollSpec) -> int:
    """Returns the bytes of one unroll in the ring; frame stacks are stored stacked."""
    return sum(
        math.prod(leaf.shape(spec.unroll_length, 1)) * np.dtype(leaf.tensor.dtype).itemsize
        for leaf in spec.leaves
    )


class UnrollRing:
    """Columns of batches, at numbered places."""

    def __init__(self, capacity: int) -> None:
        """Starts empty.

        Args:
          capacity: number of unrolls.
        """
        self._capacity = capacity
        self._columns: Batch | None = None  # dim 1 is the place
        self._is_usable = np.zeros(capacity, np.bool_)
        self._next = 0

    @property
    def usable(self) -> Places:
        """The places that hold an unroll, in rising order."""
        return np.flatnonzero(self._is_usable)

    def add(self, batch: Batch) -> Places:
        """Copies all unrolls of `batch`, at most `capacity`; returns their places."""
        size = batch.actions.shape[1]
        places = (self._next + np.arange(size)) % self._capacity
        self._next = (self._next + size) % self._capacity
        if self._columns is None:
            self._columns = map_columns(batch, self._allocate)._replace(
                policy_versions=np.zeros(self._capacity, np.int64)
            )
        # At most two ranges, copied as slices: torch has no index_copy_ for unsigned integers of
        # more than one byte on a CPU.
        first = int(places[0])
        ends_after = self._capacity - first  # columns; the others begin at place 0 again
        for ours, theirs in zip(_tensors(self._columns), _tensors(batch), strict=True):
            for to, part in zip((first, 0), theirs.tensor_split([ends_after], 1), strict=True):
                ours[:, to : to + part.shape[1]].copy_(part)
        self._columns.policy_versions[places] = batch.policy_versions
        self._is_usable[places] = True
        return places

    def mix(self, batch: Batch, places: Places) -> Batch:
        """Returns a copy of `batch` with the unrolls at `places` as further columns."""
        if not len(places):
            return batch
        assert self._columns is not None
        index = torch.from_numpy(places).to(batch.actions.device)
        stored = iter(_tensors(self._columns))
        mixed = map_columns(
            batch, lambda leaf: torch.cat([leaf, next(stored).index_select(1, index)], dim=1)
        )
        versions = np.concatenate([batch.policy_versions, self._columns.policy_versions[places]])
        return mixed._replace(policy_versions=versions, num_replayed=len(places))

    def forget(self, places: Places) -> None:
        """Removes the unrolls at `places`."""
        self._is_usable[places] = False

    def forget_all(self) -> None:
        """Removes all unrolls; the memory stays."""
        self._is_usable[:] = False

    def _allocate(self, leaf: Tensor) -> Tensor:
        shape = (leaf.shape[0], self._capacity, *leaf.shape[2:])
        return torch.empty(shape, dtype=leaf.dtype, device=leaf.device)


def _tensors(batch: Batch) -> list[Tensor]:
    """Returns all tensors of a batch, in the order in which `map_columns` visits them."""
    found: list[Tensor] = []

    def note(leaf: Tensor) -> Tensor:
        found.append(leaf)
        return leaf

    map_columns(batch, note)
    return found
