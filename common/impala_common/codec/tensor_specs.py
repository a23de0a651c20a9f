"""Packs and unpacks tensor specifications. No grpc, no torch."""

from __future__ import annotations

import math

from impala_common.codec.tensors import DTYPE_TO_PROTO, PROTO_TO_DTYPE
from impala_common.errors import InvalidRequestError
from impala_common.spec.specs import IMAGE_AXES, MAX_ELEMENTS, MAX_RANK, TensorSpec
from impala_rl.v1 import tensor_pb2


def pack_tensor_spec(spec: TensorSpec) -> tensor_pb2.TensorSpec:
    """Returns `spec` as a message."""
    return tensor_pb2.TensorSpec(
        name=spec.name, dtype=DTYPE_TO_PROTO[spec.dtype], shape=spec.shape, axes=spec.axes
    )


def unpack_tensor_spec(message: tensor_pb2.TensorSpec) -> TensorSpec:
    """Returns the specification in `message`; InvalidRequestError if no array can have it."""
    if message.dtype not in PROTO_TO_DTYPE:
        raise InvalidRequestError(f"{message.name[:64]!r}: unknown dtype {message.dtype}")
    # Check the rank first: the product of a hostile number of lengths takes too long.
    if (
        len(message.shape) > MAX_RANK
        or min(message.shape, default=1) < 1
        or math.prod(message.shape) > MAX_ELEMENTS
    ):
        raise InvalidRequestError(
            f"{message.name[:64]!r}: shape {tuple(message.shape[:MAX_RANK])} must have at most "
            f"{MAX_RANK} positive dimensions and {MAX_ELEMENTS} elements"
        )
    axes = message.axes
    if axes and (axes not in IMAGE_AXES or len(message.shape) != len(axes)):
        raise InvalidRequestError(
            f"{message.name[:64]!r}: axes: expected one of {', '.join(IMAGE_AXES)} for a shape of "
            f"rank 3, or nothing, got {axes[:8]!r} for rank {len(message.shape)}"
        )
    return TensorSpec(message.name, tuple(message.shape), PROTO_TO_DTYPE[message.dtype], axes)
