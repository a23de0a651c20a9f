"""Packs weights as one safetensors snapshot.

All snapshots of a run have the same names, types and shapes, so the header of the format is made
once (by the safetensors library itself), and publishing new weights only copies numbers to fixed
offsets. Receivers read a snapshot with the library. No grpc, no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import xxhash

from impala_common.errors import ImpalaError

Array = np.ndarray[Any, Any]


class SnapshotLayout:
    """Offset of each tensor in a snapshot. Immutable."""

    def __init__(self, template: Mapping[str, Array]) -> None:
        """Takes names, types and shapes from `template`; its numbers are ignored."""
        blob = safetensors.numpy.save(
            {name: np.asarray(array, order="C") for name, array in template.items()}
        )
        header_bytes = int.from_bytes(blob[:8], "little")
        self._start = 8 + header_bytes
        self._header = blob[: self._start]
        described: dict[str, Any] = json.loads(blob[8 : self._start])
        described.pop("__metadata__", None)
        self._places = {
            name: (template[name].dtype, template[name].shape, entry["data_offsets"][0])
            for name, entry in described.items()
        }
        self.num_bytes = len(blob)

    def make_views(self, buffer: memoryview) -> dict[str, Array]:
        """Writes the header into `buffer` and returns writable views of all tensors in it."""
        buffer[: self._start] = self._header
        return {
            name: np.ndarray(shape, dtype, buffer, self._start + offset)
            for name, (dtype, shape, offset) in self._places.items()
        }


def unpack_snapshot(data: bytes) -> dict[str, Array]:
    """Returns the tensors of a snapshot by name."""
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        # KeyError: an element type that safetensors knows and numpy does not.
        raise ImpalaError(f"the weights snapshot cannot be read: {error}") from error


def digest_of_snapshot(*pieces: bytes | memoryview) -> int:
    """Returns xxh3-64 of a snapshot, whole or in pieces."""
    state = xxhash.xxh3_64()
    for piece in pieces:
        state.update(piece)
    return state.intdigest()
