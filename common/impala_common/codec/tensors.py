"""Arrays to `impala_rl.v1.Tensor` and back.

Called by the actor's sender and by the front end. Nothing is decoded before
the declared type, shape and size agree with what the receiver expects, so a
message can never make the receiver allocate more than its own specification.
Knows nothing of gRPC or torch.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash
import zstandard

from impala_common.errors import InvalidUnrollError
from impala_common.specs import DTYPES
from impala_rl.v1 import tensor_pb2 as pb

DTYPE_TO_PROTO: dict[str, Any] = {  # Any: the stubs have no type for enum values
    name: pb.DType.Value(f"DTYPE_{name.upper()}") for name in DTYPES
}
PROTO_TO_DTYPE: dict[Any, str] = {number: name for name, number in DTYPE_TO_PROTO.items()}

_MIN_COMPRESSED_BYTES = 4096
"""Below this, compression costs more than the bytes it saves."""
_MIN_RATIO = 1.2
"""Compressed data is sent only if it is smaller by at least this factor."""
_MAX_RANK = 8

_local = threading.local()  # zstd contexts are not thread-safe: one pair per thread


def pack_tensor(array: np.ndarray[Any, Any], compress: bool = False) -> pb.Tensor:
    """Returns `array` as a message.

    Args:
      array: any dtype of `specs.DTYPES`, any shape.
      compress: whether zstd (level 1) may be used, where it pays.
    """
    plain = np.ascontiguousarray(array).tobytes()
    codec, data = pb.CODEC_UNSPECIFIED, plain
    if compress and len(plain) >= _MIN_COMPRESSED_BYTES:
        squeezed = _compressor().compress(plain)
        if len(squeezed) * _MIN_RATIO <= len(plain):
            codec, data = pb.CODEC_ZSTD, squeezed
    return pb.Tensor(
        dtype=DTYPE_TO_PROTO[array.dtype.name], shape=array.shape, data=data, codec=codec
    )


def unpack_tensor(
    tensor: pb.Tensor, name: str, dtype: str, shape: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """Returns the array in `tensor`, read-only, after checking it against dtype and shape.

    Args:
      tensor: message from the wire.
      name: what to call it in errors.
      dtype: expected element type.
      shape: expected shape.

    Raises:
      InvalidUnrollError: naming the first thing that differs.
    """
    if len(tensor.shape) > _MAX_RANK:
        raise InvalidUnrollError(f"{name}: expected at most {_MAX_RANK} dimensions")
    if tuple(tensor.shape) != shape:
        raise InvalidUnrollError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
    if tensor.dtype != DTYPE_TO_PROTO[dtype]:
        got = PROTO_TO_DTYPE.get(tensor.dtype, f"unknown type {tensor.dtype}")
        raise InvalidUnrollError(f"{name}: expected dtype {dtype}, got {got}")
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    data = _plain_bytes(tensor, name, num_bytes)
    array = np.frombuffer(data, dtype=np.dtype(dtype)).reshape(shape)
    if dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidUnrollError(f"{name}: expected booleans (0 or 1), got other bytes")
    return array


def digest_of(tensors: Iterable[pb.Tensor]) -> int:
    """Returns xxh3-64 over the `data` of all tensors, in order."""
    state = xxhash.xxh3_64()
    for tensor in tensors:
        state.update(tensor.data)
    return state.intdigest()


def _plain_bytes(tensor: pb.Tensor, name: str, num_bytes: int) -> bytes:
    data = tensor.data
    if tensor.codec == pb.CODEC_ZSTD:
        try:
            declared = zstandard.frame_content_size(data)
            if declared != num_bytes:
                raise InvalidUnrollError(
                    f"{name}: expected {num_bytes} bytes, the compressed data declares {declared}"
                )
            data = _decompressor().decompress(
                data, max_output_size=num_bytes, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise InvalidUnrollError(f"{name}: damaged zstd data ({error})") from error
    elif tensor.codec != pb.CODEC_UNSPECIFIED:
        raise InvalidUnrollError(f"{name}: unknown codec {tensor.codec}")
    if len(data) != num_bytes:
        raise InvalidUnrollError(f"{name}: expected {num_bytes} bytes, got {len(data)}")
    return data


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=1)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor
