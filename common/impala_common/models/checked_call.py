"""Calls a network and checks types, shapes, dtypes, device and finiteness of its outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from impala_common.errors import FOREIGN_ERRORS, ModelError
from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.models.own_model import describe_error
from impala_common.models.random_inputs import count_logits, describe_observations, name_of_dtype
from impala_common.spec.specs import EnvironmentSpec, TensorSpec


def run_checked(
    model: AgentModel,
    environment: EnvironmentSpec,
    specs: tuple[TensorSpec, ...],
    inputs: ModelInputs,
    state: AgentState,
) -> ModelOutputs:
    """Calls forward and checks types and shapes of its outputs."""
    kept = [leaf.clone() for leaf in (*inputs.observations.values(), *inputs[1:], *state)]
    outputs = call_checked("forward", model, inputs, state)
    if not isinstance(outputs, ModelOutputs):
        raise ModelError(f"forward: expected ModelOutputs, got {type(outputs).__name__}")
    device = inputs.is_first.device
    rows = tuple(inputs.is_first.shape)
    num_logits = count_logits(environment)
    require_tensor("policy_logits", outputs.policy_logits, (*rows, num_logits), device, "T, B, P")
    require_tensor("values", outputs.values, rows, device, "T, B")
    validate_state("state", outputs.state, specs, inputs)
    now = (*inputs.observations.values(), *inputs[1:], *state)
    if not all(torch.equal(before, after) for before, after in zip(kept, now, strict=True)):
        raise ModelError("forward must not change its inputs in place: others read them, too")
    for name, tensor in (("policy_logits", outputs.policy_logits), ("values", outputs.values)):
        if len(bad := tensor[~torch.isfinite(tensor)].tolist()):
            raise ModelError(f"{name}: expected finite numbers, got {bad[0]}")
    return outputs


def call_checked(
    what: str, function: Callable[..., object], inputs: ModelInputs, state: AgentState
) -> object:
    """Calls a method of a network; converts its errors to ModelError."""
    try:
        return function(inputs, state)
    except FOREIGN_ERRORS as error:
        raise ModelError(
            f"{what} raised {describe_error(error)}; "
            f"it was called with {describe_observations(inputs)}"
        ) from error


def validate_state(
    name: str, state: object, specs: tuple[TensorSpec, ...], inputs: ModelInputs
) -> AgentState:
    """Checks number, shapes and type of a state's tensors against `specs`; returns the state."""
    if not isinstance(state, tuple) or len(state) != len(specs):
        got = f"{len(state)}" if isinstance(state, tuple) else f"a {type(state).__name__}"
        raise ModelError(f"{name}: expected a tuple of {len(specs)} tensors, got {got}")
    num_columns = inputs.is_first.shape[1]
    for index, (tensor, spec) in enumerate(zip(state, specs, strict=True)):
        shape = (spec.shape[0], num_columns, *spec.shape[1:])
        require_tensor(f"{name}[{index}]", tensor, shape, inputs.is_first.device, "L, B, H")
    return state


def require_tensor(
    name: str, tensor: object, shape: tuple[int, ...], device: torch.device, dimensions: str
) -> None:
    """Raises ModelError unless the value is a float32 tensor of this shape on this device.

    `dimensions` names the dimensions of `shape`, such as "T, B, P".
    """
    if not isinstance(tensor, Tensor):
        raise ModelError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tuple(tensor.shape) != shape:
        raise ModelError(
            f"{name}: expected {list(shape)}, got {list(tensor.shape)} ([{dimensions}])"
        )
    if tensor.dtype != torch.float32:
        raise ModelError(f"{name}: expected float32, got {name_of_dtype(tensor.dtype)}")
    if tensor.device != device:
        raise ModelError(f"{name}: expected a tensor on {device}, got one on {tensor.device}")
