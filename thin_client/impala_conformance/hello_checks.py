"""What a client says in its hello, compared with spec.proto and policy.proto; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from impala_conformance.environment import count_logits
from impala_conformance.policy_peer import PROTOCOL_VERSION
from impala_rl.v1 import policy_pb2, spec_pb2, tensor_pb2

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MAX_DIMENSIONS, _MAX_PARTS, _MAX_LOGITS = 8, 256, 65536


def find_hello_faults(hello: policy_pb2.PlayHello) -> Iterator[tuple[str, str]]:
    """Yields (name of the rule, what is wrong) of a hello."""
    if not _NAME.fullmatch(hello.client_id):
        yield "client-id", f"expected client_id to match {_NAME.pattern}, got {hello.client_id!r}"
    if hello.protocol_version != PROTOCOL_VERSION:
        text = f"expected protocol_version {PROTOCOL_VERSION}, got {hello.protocol_version}"
        yield "protocol-version", text
    if hello.slot_count < 1:
        yield "slot-count", f"expected slot_count of at least 1, got {hello.slot_count}"
    if hello.is_greedy and not hello.is_evaluation:
        yield "greedy-needs-evaluation", "expected is_greedy with is_evaluation only"
    for text in (*_find_leaf_faults(hello.environment), *_find_action_faults(hello.environment)):
        yield "environment", text


def _find_leaf_faults(environment: spec_pb2.EnvironmentSpec) -> Iterator[str]:
    leaves = list(environment.observation_leaves)
    if not leaves:
        yield "expected at least one observation leaf, got none"
    names = [leaf.name for leaf in leaves]
    if names != sorted(set(names)):
        yield f"expected distinct names of leaves in sorted order, got {names}"
    for leaf in leaves:
        if leaf.name != "observation" and not leaf.name.startswith("observation/"):
            yield f"expected the name observation or observation/..., got {leaf.name!r}"
        yield from _find_tensor_faults(leaf)
        is_image = leaf.role in (
            tensor_pb2.TENSOR_ROLE_IMAGE_HWC,
            tensor_pb2.TENSOR_ROLE_IMAGE_CHW,
        )
        if is_image and len(leaf.shape) != 3:
            yield f"expected an image of rank 3, got {leaf.name} {list(leaf.shape)}"
    stack = environment.frame_stack
    if stack > 1 and (len(leaves) != 1 or list(leaves[0].shape[:1]) != [stack]):
        yield f"expected frame_stack {stack} as dimension 0 of the only leaf"
    yield from _find_mask_faults(environment)


def _find_mask_faults(environment: spec_pb2.EnvironmentSpec) -> Iterator[str]:
    masks = [
        leaf
        for leaf in environment.observation_leaves
        if leaf.role == tensor_pb2.TENSOR_ROLE_ACTION_MASK
    ]
    if len(masks) > 1:
        yield f"expected one mask at most, got {len(masks)}"
    for mask in masks:
        num = count_logits(environment.action)
        if math.prod(mask.shape) != num:
            yield f"expected a mask of {num} elements, got {list(mask.shape)}"
        if {part.kind for part in environment.action.parts} - {spec_pb2.ACTION_KIND_CATEGORICAL}:
            yield "expected choices only beside a mask"


def _find_tensor_faults(tensor: tensor_pb2.TensorSpec) -> Iterator[str]:
    if (
        tensor.dtype == tensor_pb2.DTYPE_UNSPECIFIED
        or tensor.dtype not in tensor_pb2.DType.values()
    ):
        yield f"expected an element type, got {tensor.dtype} of {tensor.name}"
    if len(tensor.shape) > _MAX_DIMENSIONS or any(size < 0 for size in tensor.shape):
        text = f"at most {_MAX_DIMENSIONS} dimensions, none negative"
        yield f"expected {text}, got {list(tensor.shape)} of {tensor.name}"


def _find_action_faults(environment: spec_pb2.EnvironmentSpec) -> Iterator[str]:
    parts = list(environment.action.parts)
    if not 1 <= len(parts) <= _MAX_PARTS:
        yield f"expected 1 to {_MAX_PARTS} parts of the action, got {len(parts)}"
    for part in parts:
        name = part.tensor.name
        if name != "action" and not name.startswith("action/"):
            yield f"expected the name action or action/..., got {name!r}"
        yield from _find_tensor_faults(part.tensor)
        num = math.prod(part.tensor.shape)
        if part.kind == spec_pb2.ACTION_KIND_CATEGORICAL:
            if len(part.sizes) != num or len(part.starts) != num:
                yield f"expected {num} sizes and starts of {name}"
            if any(size < 1 for size in part.sizes):
                yield f"expected sizes of at least 1, got {list(part.sizes)} of {name}"
        elif part.kind == spec_pb2.ACTION_KIND_GAUSSIAN:
            bounds = list(zip(part.lows, part.highs, strict=False))
            if len(part.lows) != num or len(part.highs) != num:
                yield f"expected {num} lows and highs of {name}"
            if not all(low <= high for low, high in bounds):
                yield f"expected lows that are not above highs, got {bounds} of {name}"
        elif part.kind != spec_pb2.ACTION_KIND_BERNOULLI:
            yield f"expected a kind of action, got {part.kind} of {name}"
    if count_logits(environment.action) > _MAX_LOGITS:
        yield f"expected at most {_MAX_LOGITS} logits, got {count_logits(environment.action)}"
