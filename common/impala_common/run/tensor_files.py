"""Writes the tensor files of a checkpoint in pieces, hashed and synced.

A file of tensors is safetensors: the length of a header, the header (JSON), the
bytes of all tensors. It is written from the arrays themselves in small pieces, which avoids a copy
and releases Python's lock often, so that the learner updates meanwhile. Used by
`impala_common.run.checkpoints` on the learner's checkpoint thread;
`impala_common.run.checkpoint_manifest` reads the files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from impala_common.process import failpoints

_PIECE_BYTES = 1 << 20
_ALIGNMENT = 8
_DTYPES = {
    "b1": "BOOL", "i1": "I8", "u1": "U8", "i2": "I16", "u2": "U16", "f2": "F16",
    "i4": "I32", "u4": "U32", "f4": "F32", "i8": "I64", "u8": "U64", "f8": "F64",
}  # fmt: skip
"""numpy's kind and bytes -> the format's name."""

Array = np.ndarray[Any, Any]


def write_tensors(path: Path, tensors: Mapping[str, Array]) -> tuple[str, int]:
    """Writes a new safetensors file and returns its (sha256, bytes) when it is on disk.

    Raises:
      OSError: it cannot be written; a partial file may exist.
      TypeError: the format does not have an array's type.
    """
    arrays = {name: _pack_array(array) for name, array in tensors.items()}
    # Like the format's own library: largest elements first, so that all tensors are aligned.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {}  # Any: JSON
    num_bytes = 0
    for name in order:
        array = arrays[name]
        end = num_bytes + array.nbytes
        dtype = _DTYPES[array.dtype.str[1:]]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [num_bytes, end]}
        num_bytes = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    beginning = len(text).to_bytes(8, "little") + text
    pieces = _cut([np.frombuffer(beginning, np.uint8), *(arrays[name] for name in order)])
    num_bytes += len(beginning)
    return write_synced(path, pieces, num_bytes), num_bytes


def write_synced(path: Path, pieces: Iterable[memoryview], num_bytes: int) -> str:
    """Writes a new file of `num_bytes` bytes and returns its sha256 when it is on disk."""
    digest = hashlib.sha256()
    written = 0
    with path.open("xb") as file:
        for piece in pieces:
            if written <= num_bytes // 2 < written + len(piece):
                # Unbuffered: at the failpoint half of the file is really written.
                file.write(piece[: num_bytes // 2 - written])
                file.flush()
                failpoints.hit("checkpoint.mid_write")
                file.write(piece[num_bytes // 2 - written :])
            else:
                file.write(piece)
            digest.update(piece)
            written += len(piece)
        file.flush()
        failpoints.hit("checkpoint.before_sync")
        os.fsync(file.fileno())
    return digest.hexdigest()


def _pack_array(array: Array) -> Array:
    """Returns the array in the format's layout: contiguous, least significant byte first."""
    packed = np.asarray(array, order="C", dtype=array.dtype.newbyteorder("<"))
    if packed.dtype.str[1:] not in _DTYPES:
        raise TypeError(f"no safetensors type for arrays of {array.dtype}")
    return packed


def _cut(arrays: Iterable[Array]) -> Iterator[memoryview]:
    """Yields the bytes of all arrays in pieces, without a copy."""
    for array in arrays:
        whole = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(whole), _PIECE_BYTES):
            yield whole[start : start + _PIECE_BYTES]
