"""validate_model: finds out before training whether a network keeps the contract.

The contract is in `impala_common.models.contract`, for people in docs/models.md. A few
rows of random data go through the network as the learner and as actors call it; what
must be equal is compared. The network is left as it was: weights, buffers, modes,
gradients and the global random stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from impala_common.errors import ModelError
from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.models.own_model import describe_error
from impala_common.models.probe import (
    NUM_COLUMNS,
    NUM_ROWS,
    SEED,
    count_logits,
    describe_observations,
    left_as_it_was,
    make_inputs,
    make_state,
    name_of_dtype,
    take_first_column,
    take_part,
)
from impala_common.models.trunk import Encoder
from impala_common.models.weights import weights_specs
from impala_common.specs import DTYPES, EnvironmentSpec, TensorSpec

_TOLERANCE = {"cpu": 1e-4}  # of the largest number; elsewhere sums may be less exact
_OTHER_TOLERANCE = 1e-2


def validate_model(model: AgentModel, environment: EnvironmentSpec) -> None:
    """Checks a network with random data of T=2 rows and B=3 columns, on its own device.

    Raises:
      ModelError: it breaks the contract; the text says which rule, expected and actual.
    """
    _validate_parameters(model)
    specs = _validate_state_specs(model)
    inputs = make_inputs(environment, next(model.parameters()).device)
    state = make_state(specs, inputs)
    with left_as_it_was(model):
        model.train()
        outputs = _run(model, environment, specs, inputs, state)
        _validate_gradients(model, outputs)
        with torch.no_grad():
            _Comparison(model, environment, specs, inputs, state, outputs).run()


def validate_encoder(encoder: Encoder, environment: EnvironmentSpec) -> None:
    """Checks what an encoder of one's own gives, before layers are built for it.

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
        except Exception as error:
            raise ModelError(
                f"the encoder's forward raised {describe_error(error)}; "
                f"it was called with {describe_observations(inputs)}"
            ) from error
    _require_tensor(
        "output of the encoder (T*B rows)", features, (NUM_ROWS * NUM_COLUMNS, width), device
    )


class _Comparison:
    """The rules that several calls of one network must keep together."""

    def __init__(
        self,
        model: AgentModel,
        environment: EnvironmentSpec,
        specs: tuple[TensorSpec, ...],
        inputs: ModelInputs,
        state: AgentState,
        outputs: ModelOutputs,
    ) -> None:
        self._model = model
        self._environment = environment
        self._specs = specs
        self._inputs = inputs
        self._state = state
        self._outputs = outputs

    def run(self) -> None:
        """Raises ModelError at the first rule that is broken."""
        inputs, state = self._inputs, self._state
        _require_equal(
            self._forward(inputs, state),
            self._outputs,
            "two calls with equal inputs must give equal outputs (no dropout, no noise, and "
            "no state kept inside the network)",
        )
        self._compare_columns()
        self._compare_rows()
        self._compare_state()
        self._model.eval()
        _require_equal(
            self._forward(inputs, state),
            self._outputs,
            "train() and eval() must not differ (no dropout, no batch normalisation): actors "
            "run the network in eval mode",
        )
        self._compare_act()

    def _compare_columns(self) -> None:
        """A column alone (B=1) is what it is beside others."""
        alone = self._forward(
            take_part(self._inputs, columns=slice(1)), take_first_column(self._state)
        )
        together = ModelOutputs(
            self._outputs.policy_logits[:, :1],
            self._outputs.values[:, :1],
            take_first_column(self._outputs.state),
        )
        rule = "a column must not depend on the other columns of the batch (no batch normalisation)"
        _require_equal(alone, together, rule)

    def _compare_rows(self) -> None:
        """Row 0 does not see row 1."""
        outputs = self._forward(self._replace_row(1), self._state)
        rule = "row t must not depend on later rows"
        for name in ("policy_logits", "values"):
            _require_close(name, getattr(outputs, name)[:1], getattr(self._outputs, name)[:1], rule)

    def _compare_state(self) -> None:
        """Where an episode opens, nothing of what was before matters."""
        if not self._specs:
            return
        first = self._inputs.is_first[0]  # columns that open at row 0: no row sees the old state
        second = self._inputs.is_first[1]  # columns that open at row 1: it sees no row 0 either
        other_state = tuple(tensor + 1.0 for tensor in self._state)
        outputs = self._forward(self._inputs, other_state)
        rule = "the state must be set to 0 before a row where is_first"
        self._compare_episodes(outputs, first, slice(None), rule)
        self._compare_episodes(outputs, second, slice(1, None), rule)
        other_row = self._replace_row(0)
        outputs = self._forward(other_row, other_state)
        rule = "nothing of an episode's rows may be seen after the next is_first"
        self._compare_episodes(outputs, second, slice(1, None), rule)

    def _compare_episodes(
        self, outputs: ModelOutputs, columns: Tensor, rows: slice, rule: str
    ) -> None:
        for name in ("policy_logits", "values"):
            after, before = getattr(outputs, name), getattr(self._outputs, name)
            _require_close(name, after[rows][:, columns], before[rows][:, columns], rule)
        for index, (after, before) in enumerate(
            zip(outputs.state, self._outputs.state, strict=True)
        ):
            _require_close(f"state[{index}]", after[:, columns], before[:, columns], rule)

    def _replace_row(self, row: int) -> ModelInputs:
        """Returns the inputs with other observations and rewards in one row."""
        other = make_inputs(self._environment, self._inputs.is_first.device, SEED + 1)
        is_row = torch.arange(NUM_ROWS, device=self._inputs.is_first.device) == row
        observations = {
            name: torch.where(is_row.view(-1, *[1] * (leaf.ndim - 1)), leaf, kept)
            for (name, leaf), kept in zip(
                other.observations.items(), self._inputs.observations.values(), strict=True
            )
        }
        rewards = torch.where(
            is_row.view(-1, 1), other.previous_rewards, self._inputs.previous_rewards
        )
        return self._inputs._replace(observations=observations, previous_rewards=rewards)

    def _compare_act(self) -> None:
        """Row by row with carried state, as actors go, is what the learner sees in one call."""
        logits, state = [], self._state
        with torch.inference_mode():
            for row in range(NUM_ROWS):
                inputs = take_part(self._inputs, rows=slice(row, row + 1))
                acted = _call("act", self._model.act, inputs, state)
                if not isinstance(acted, tuple) or len(acted) != 2:
                    raise ModelError(f"act: expected (policy_logits, state), got {acted!r:.80}")
                shape = (1, NUM_COLUMNS, count_logits(self._environment))
                _require_tensor("act's policy_logits", acted[0], shape, inputs.is_first.device)
                logits.append(acted[0])
                state = _validate_state("act's state", acted[1], self._specs, inputs)
        rule = "act row by row, carrying the state, must equal forward over all rows"
        _require_close("policy_logits", torch.cat(logits), self._outputs.policy_logits, rule)
        for index, (after, before) in enumerate(zip(state, self._outputs.state, strict=True)):
            _require_close(f"state[{index}]", after, before, rule)

    def _forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        return _run(self._model, self._environment, self._specs, inputs, state)


def _run(
    model: AgentModel,
    environment: EnvironmentSpec,
    specs: tuple[TensorSpec, ...],
    inputs: ModelInputs,
    state: AgentState,
) -> ModelOutputs:
    """Returns forward's outputs once they have the right types and shapes."""
    kept = [leaf.clone() for leaf in (*inputs.observations.values(), *inputs[1:], *state)]
    outputs = _call("forward", model, inputs, state)
    if not isinstance(outputs, ModelOutputs):
        raise ModelError(f"forward: expected ModelOutputs, got {type(outputs).__name__}")
    device = inputs.is_first.device
    rows = tuple(inputs.is_first.shape)
    num_logits = count_logits(environment)
    _require_tensor("policy_logits", outputs.policy_logits, (*rows, num_logits), device)
    _require_tensor("values", outputs.values, rows, device)
    _validate_state("state", outputs.state, specs, inputs)
    now = (*inputs.observations.values(), *inputs[1:], *state)
    if not all(torch.equal(before, after) for before, after in zip(kept, now, strict=True)):
        raise ModelError("forward must not change its inputs in place: others read them, too")
    for name, tensor in (("policy_logits", outputs.policy_logits), ("values", outputs.values)):
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"{name}: expected finite numbers, got {tensor.flatten()[:4].tolist()}"
            )
    return outputs


def _call(
    what: str, function: Callable[..., object], inputs: ModelInputs, state: AgentState
) -> object:
    try:
        return function(inputs, state)
    except Exception as error:
        raise ModelError(
            f"{what} raised {describe_error(error)}; "
            f"it was called with {describe_observations(inputs)}"
        ) from error


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
        except Exception as error:
            raise ModelError(f"initial_state raised {describe_error(error)}") from error
        shapes = [tuple(tensor.shape) for tensor in state]
        expected = [(spec.shape[0], num_columns, *spec.shape[1:]) for spec in specs]
        if shapes != expected:
            raise ModelError(f"initial_state({num_columns}): expected {expected}, got {shapes}")
    return specs


def _state_specs_of(model: AgentModel) -> tuple[TensorSpec, ...]:
    try:
        return tuple(model.agent_state_specs())
    except Exception as error:
        raise ModelError(f"agent_state_specs raised {describe_error(error)}") from error


def _validate_state(
    name: str, state: object, specs: tuple[TensorSpec, ...], inputs: ModelInputs
) -> AgentState:
    if not isinstance(state, tuple) or len(state) != len(specs):
        got = f"{len(state)}" if isinstance(state, tuple) else f"a {type(state).__name__}"
        raise ModelError(f"{name}: expected a tuple of {len(specs)} tensors, got {got}")
    num_columns = inputs.is_first.shape[1]
    for index, (tensor, spec) in enumerate(zip(state, specs, strict=True)):
        shape = (spec.shape[0], num_columns, *spec.shape[1:])
        _require_tensor(f"{name}[{index}]", tensor, shape, inputs.is_first.device)
    return state


def _validate_gradients(model: AgentModel, outputs: ModelOutputs) -> None:
    """Logits and values must each reach a parameter that learns, with finite gradients."""
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


def _require_tensor(
    name: str, tensor: object, shape: tuple[int, ...], device: torch.device
) -> None:
    if not isinstance(tensor, Tensor):
        raise ModelError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tuple(tensor.shape) != shape:
        raise ModelError(f"{name}: expected {list(shape)}, got {list(tensor.shape)}")
    if tensor.dtype != torch.float32:
        raise ModelError(f"{name}: expected float32, got {name_of_dtype(tensor.dtype)}")
    if tensor.device != device:
        raise ModelError(f"{name}: expected a tensor on {device}, got one on {tensor.device}")


def _require_equal(actual: ModelOutputs, expected: ModelOutputs, rule: str) -> None:
    _require_close("policy_logits", actual.policy_logits, expected.policy_logits, rule)
    _require_close("values", actual.values, expected.values, rule)
    for index, (after, before) in enumerate(zip(actual.state, expected.state, strict=True)):
        _require_close(f"state[{index}]", after, before, rule)


def _require_close(name: str, actual: Tensor, expected: Tensor, rule: str) -> None:
    """Raises ModelError unless two tensors differ by rounding only."""
    if not expected.numel():
        return
    tolerance = _TOLERANCE.get(expected.device.type, _OTHER_TOLERANCE)
    scale = float(expected.abs().max())
    difference = float((actual - expected).abs().max())
    if not difference <= tolerance * scale + 1e-6:
        raise ModelError(f"{name}: {rule}; got a difference of {difference:.2g}")
