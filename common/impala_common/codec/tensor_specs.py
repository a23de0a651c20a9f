"""Packs and unpacks tensor specifications. No grpc, no torch."""

from __future__ import annotations

import math

from impala_common.codec.tensors import DTYPE_TO_PROTO, PROTO_TO_DTYPE
from impala_common.errors import InvalidRequestError
from impala_common.spec.specs import MAX_ELEMENTS, MAX_RANK, TensorSpec
from impala_common.spec.tensor_spec import TensorRole
from impala_rl.v1 import tensor_pb2

_ROLE_TO_PROTO: dict[TensorRole, tensor_pb2.TensorRole] = {
    "": tensor_pb2.TENSOR_ROLE_UNSPECIFIED,
    "image_hwc": tensor_pb2.TENSOR_ROLE_IMAGE_HWC,
    "image_chw": tensor_pb2.TENSOR_ROLE_IMAGE_CHW,
    "action_mask": tensor_pb2.TENSOR_ROLE_ACTION_MASK,
}
_PROTO_TO_ROLE = {number: role for role, number in _ROLE_TO_PROTO.items()}


def pack_tensor_spec(spec: TensorSpec) -> tensor_pb2.TensorSpec:
    """Returns `spec` as a message."""
    return tensor_pb2.TensorSpec(
        name=spec.name,
        dtype=DTYPE_TO_PROTO[spec.dtype],
        shape=spec.shape,
        role=_ROLE_TO_PROTO[spec.role],
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
    role = _PROTO_TO_ROLE.get(message.role)
    if role is None:
        raise InvalidRequestError(f"{message.name[:64]!r}: unknown role {message.role}")
    if role.startswith("image") and len(message.shape) != 3:
        raise InvalidRequestError(f"{message.name[:64]!r}: role {role} expects rank 3")
    return TensorSpec(message.name, tuple(message.shape), PROTO_TO_DTYPE[message.dtype], role)
