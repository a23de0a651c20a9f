"""validate_model: checks before training that a network keeps the contract.

The contract is in `impala_common.models.contract`, explained in docs/models.md. A few rows of
random data go through the network as the learner and as actors call it, and the results are
compared. Weights, buffers, modes, gradients and the global random stream are restored afterwards.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from impala_common.errors import FOREIGN_ERRORS, ModelError
from impala_common.models.checked_call import require_tensor, run_checked
from impala_common.models.comparison import Comparison
from impala_common.models.contract import AgentModel, ModelOutputs
from impala_common.models.own_model import describe_error
from impala_common.models.random_inputs import (
    NUM_COLUMNS,
    NUM_ROWS,
    describe_observations,
    left_as_it_was,
    make_inputs,
    make_state,
)
from impala_common.models.trunk import Encoder
from impala_common.models.weights import weights_specs
from impala_common.spec.specs import DTYPES, EnvironmentSpec, TensorSpec


def validate_model(model: AgentModel, environment: EnvironmentSpec) -> None:
    """Checks a network with random data of T=2 rows and B=3 columns, on its own device.

    Raises:
      ModelError: it breaks the contract; the text names the rule, expected and actual.
    """
    _validate_parameters(model)
    specs = _validate_state_specs(model)
    inputs = make_inputs(environment, next(model.parameters()).device)
    state = make_state(specs, inputs)
    with left_as_it_was(model):
        model.train()
        outputs = run_checked(model, environment, specs, inputs, state)
        _validate_gradients(model, outputs)
        with torch.no_grad():
            Comparison(model, environment, specs, inputs, state, outputs).run()


def validate_encoder(encoder: Encoder, environment: EnvironmentSpec) -> None:
    """Checks the outputs of a user's own encoder, before layers are built on it.

    Raises:
      ModelError: its output is not float32 [T*B, num_features].
    """
    width = getattr(encoder, "num_features", None)
    if not isinstance(width, int) or width < 1:
        raise ModelError(f"num_features of an Encoder: expected a positive int, got {width!r}")
    _require_sizes(encoder)
    parameter = next(encoder.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    inputs = make_inputs(environment, device)
    with left_as_it_was(encoder), torch.no_grad():
        try:
            features = encoder(inputs.observations)
        except FOREIGN_ERRORS as error:
            raise ModelError(
                f"the encoder's forward raised {describe_error(error)}; "
                f"it was called with {describe_observations(inputs)}"
            ) from error
    require_tensor(
        "output of the encoder", features, (NUM_ROWS * NUM_COLUMNS, width), device, "T*B, F"
    )


def _validate_parameters(model: AgentModel) -> None:
    if not any(True for _ in model.parameters()):
        raise ModelError("the network has no parameter: there is nothing to train")
    _require_sizes(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError("no parameter of the network has requires_grad: nothing can be trained")
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ModelError(f"{name}: weights must be tensors, got {type(value).__name__}")
    for spec in weights_specs(model):
        if spec.dtype not in DTYPES:
            raise ModelError(f"{spec.name}: {spec.dtype} cannot be sent; use {', '.join(DTYPES)}")
        if not math.prod(spec.shape):
            raise ModelError(f"{spec.name}: a tensor of shape {list(spec.shape)} has no elements")


def _require_sizes(module: nn.Module) -> None:
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise ModelError("lazy layers have no sizes yet: give their number of inputs")


def _validate_state_specs(model: AgentModel) -> tuple[TensorSpec, ...]:
    specs = _state_specs_of(model)
    for index, spec in enumerate(specs):
        name = f"initial_agent_state/{index}"
        is_good = isinstance(spec, TensorSpec) and spec.name == name and spec.dtype == "float32"
        if not is_good or len(spec.shape) != 2 or min(spec.shape) < 1:
            raise ModelError(
                f"agent_state_specs()[{index}]: expected TensorSpec({name!r}, (L, H), 'float32') "
                f"(make_state_specs makes them), got {spec!r}"
            )
    for num_columns in (1, NUM_COLUMNS):
        try:
            state = model.initial_state(num_columns)
        except FOREIGN_ERRORS as error:
            raise ModelError(f"initial_state raised {describe_error(error)}") from error
        shapes = [tuple(tensor.shape) for tensor in state]
        expected = [(spec.shape[0], num_columns, *spec.shape[1:]) for spec in specs]
        if shapes != expected:
            raise ModelError(f"initial_state({num_columns}): expected {expected}, got {shapes}")
    return specs


def _state_specs_of(model: AgentModel) -> tuple[TensorSpec, ...]:
    try:
        return tuple(model.agent_state_specs())
    except FOREIGN_ERRORS as error:
        raise ModelError(f"agent_state_specs raised {describe_error(error)}") from error


def _validate_gradients(model: AgentModel, outputs: ModelOutputs) -> None:
    """Logits and values must each have finite gradients for a trainable parameter."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for name, tensor in (("policy_logits", outputs.policy_logits), ("values", outputs.values)):
        if not tensor.requires_grad:
            raise ModelError(f"{name}: no gradient reaches any parameter (detached?)")
        weights = torch.arange(1.0, tensor.numel() + 1.0, device=tensor.device).view_as(tensor)
        try:
            gradients = torch.autograd.grad(
                (tensor * weights).sum(), parameters, retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            raise ModelError(f"{name}: the backward pass raised {describe_error(error)}") from error
        reached = [gradient for gradient in gradients if gradient is not None]
        if not reached:
            raise ModelError(f"{name}: no gradient reaches any parameter (detached?)")
        if not all(torch.isfinite(gradient).all() for gradient in reached):
            raise ModelError(f"{name}: expected finite gradients, got others")
