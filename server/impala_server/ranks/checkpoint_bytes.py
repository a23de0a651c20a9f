"""Checkpoints as bytes: JSON and safetensors, no pickle. Their way from rank 0 to the others."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from safetensors import numpy as safetensors_numpy

from impala_common.errors import CheckpointError
from impala_common.run.checkpoints import Checkpoint, Tensors

_LENGTH = struct.Struct("<Q")


def pack_checkpoint(
    name: str,
    step: int,
    tensors: Tensors,
    state: dict[str, Any],  # Any: JSON
) -> bytes:
    """Returns a checkpoint as bytes; arguments as the attributes of `Checkpoint`."""
    groups = {
        group: safetensors_numpy.save(
            {key: np.asarray(array, order="C") for key, array in arrays.items()}
        )
        for group, arrays in tensors.items()
    }
    sizes = {group: len(data) for group, data in groups.items()}
    head = json.dumps({"name": name, "step": step, "state": state, "groups": sizes}).encode()
    return b"".join((_LENGTH.pack(len(head)), head, *groups.values()))


def unpack_checkpoint(data: bytes) -> Checkpoint:
    """Returns the checkpoint that `pack_checkpoint` wrote.

    Raises:
      CheckpointError: the bytes are something else.
    """
    try:
        (length,) = _LENGTH.unpack_from(data)
        start = _LENGTH.size + length
        head = json.loads(data[_LENGTH.size : start])
        tensors = {}
        for group, size in head["groups"].items():
            tensors[group] = safetensors_numpy.load(data[start : start + size])
            start += size
        return Checkpoint(head["name"], head["step"], tensors, head["state"])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"not a checkpoint from rank 0: {error!r}") from error
