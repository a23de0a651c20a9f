"""Packs and unpacks action specifications; refuses invalid ones. No grpc, no torch."""

from __future__ import annotations

import math

import numpy as np

from impala_common.codec.tensor_specs import pack_tensor_spec, unpack_tensor_spec
from impala_common.errors import InvalidRequestError
from impala_common.spec.action_spec import (
    ACTION,
    MAX_POLICY_LOGITS,
    ActionKind,
    ActionPart,
    ActionSpec,
)
from impala_common.spec.tensor_spec import TensorSpec
from impala_rl.v1 import spec_pb2 as pb

_MAX_PARTS = 256
_KIND_TO_PROTO: dict[ActionKind, pb.ActionKind] = {
    "categorical": pb.ACTION_KIND_CATEGORICAL,
    "bernoulli": pb.ACTION_KIND_BERNOULLI,
    "gaussian": pb.ACTION_KIND_GAUSSIAN,
}
_PROTO_TO_KIND = {value: kind for kind, value in _KIND_TO_PROTO.items()}


def pack_action_spec(spec: ActionSpec) -> pb.ActionSpec:
    """Returns `spec` as a message."""
    return pb.ActionSpec(
        parts=[
            pb.ActionPart(
                tensor=pack_tensor_spec(TensorSpec(part.name, part.shape, part.dtype)),
                kind=_KIND_TO_PROTO[part.kind],
                sizes=part.sizes,
                starts=part.starts,
                lows=part.lows,
                highs=part.highs,
            )
            for part in spec.parts
        ]
    )


def unpack_action_spec(message: pb.ActionSpec) -> ActionSpec:
    """Returns the specification in `message`.

    Raises:
      InvalidRequestError: names the part that cannot be trained on.
    """
    if not 1 <= len(message.parts) <= _MAX_PARTS:
        raise InvalidRequestError(
            f"action: expected 1 to {_MAX_PARTS} parts, got {len(message.parts)}"
        )
    spec = ActionSpec(tuple(_unpack_part(part) for part in message.parts))
    names = [part.name for part in spec.parts]
    if len(set(names)) != len(names):
        raise InvalidRequestError("action: expected parts of distinct names")
    if spec.num_logits > MAX_POLICY_LOGITS:
        raise InvalidRequestError(
            f"action: expected at most {MAX_POLICY_LOGITS} logits, got {spec.num_logits}"
        )
    return spec


def _unpack_part(message: pb.ActionPart) -> ActionPart:
    tensor = unpack_tensor_spec(message.tensor)
    name = f"{tensor.name[:64]!r}"
    if tensor.name != ACTION and not tensor.name.startswith(f"{ACTION}/"):
        raise InvalidRequestError(f"{name}: expected the name of a part, action or action/...")
    if message.kind not in _PROTO_TO_KIND:
        raise InvalidRequestError(f"{name}: unknown kind of action {message.kind}")
    part = ActionPart(
        name=tensor.name,
        kind=_PROTO_TO_KIND[message.kind],
        shape=tensor.shape,
        dtype=tensor.dtype,
        sizes=tuple(message.sizes),
        starts=tuple(message.starts),
        lows=tuple(message.lows),
        highs=tuple(message.highs),
    )
    is_gaussian, is_categorical = part.kind == "gaussian", part.kind == "categorical"
    if (np.dtype(part.dtype).kind == "f") != is_gaussian:
        raise InvalidRequestError(f"{name}: {part.kind} actions are no {part.dtype}")
    num_choices = part.num_components if is_categorical else 0
    num_bounds = part.num_components if is_gaussian else 0
    if (len(part.sizes), len(part.starts)) != (num_choices, num_choices):
        raise InvalidRequestError(f"{name}: expected {num_choices} sizes and starts")
    if (len(part.lows), len(part.highs)) != (num_bounds, num_bounds):
        raise InvalidRequestError(f"{name}: expected {num_bounds} lows and highs")
    if min(part.sizes, default=1) < 1:
        raise InvalidRequestError(f"{name}: expected sizes of at least 1, got {min(part.sizes)}")
    if not all(low <= high for low, high in zip(part.lows, part.highs, strict=True)):
        raise InvalidRequestError(f"{name}: expected lows that are at most highs")
    if math.inf in part.lows or -math.inf in part.highs:  # files could not hold them
        raise InvalidRequestError(f"{name}: expected lows below inf and highs above -inf")
    return part
