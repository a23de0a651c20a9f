"""make_onnx: a policy as an ONNX graph of one step of N slots, with recurrent state.

Made by `torch.onnx.export` through torch.export, never TorchScript; onnxruntime runs it, and its
outputs are compared with torch's before it is returned. Called by
`impala_actor.evaluation.policy_export`, which imports this file late; needs the extra `onnx`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from impala_common.errors import ConfigError, MissingExtraError
from impala_common.models.contract import AgentModel, ModelInputs
from impala_common.spec.action_spec import hide_masked
from impala_common.spec.specs import EnvironmentSpec, TensorSpec

EXTRA = "onnx"
TOLERANCE = 1e-4
"""Largest difference to torch; relative where an output has numbers above 1."""
IS_FIRST, PREVIOUS_ACTION, PREVIOUS_REWARD = "is_first", "previous_action", "previous_reward"
POLICY_LOGITS, VALUE = "policy_logits", "value"
_MODULES = ("onnx", "onnxruntime", "onnxscript")
_NUM_STEPS = 6
_TRACED_SLOTS = 3  # not 1: the exporter may treat a size of 1 as a constant

Array = np.ndarray[Any, Any]


class PolicyInterface(NamedTuple):
    """Names, shapes and element types of the inputs and outputs of one decision.

    Attributes:
      inputs: each [N, ...]; observation leaves, is_first, and the previous step if it is used.
      states: recurrent tensors, each [L, N, H]; `state_k` goes in, `next_state_k` comes out.
      num_logits: P, width of policy_logits.
    """

    inputs: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...]
    num_logits: int

    @property
    def input_names(self) -> list[str]:
        """Names of all inputs, in order."""
        return [spec.name for spec in (*self.inputs, *self.states)]

    @property
    def output_names(self) -> list[str]:
        """Names of all outputs, in order."""
        return [POLICY_LOGITS, VALUE, *(f"next_{spec.name}" for spec in self.states)]


def make_interface(
    model: AgentModel, environment: EnvironmentSpec, uses_previous_step: bool
) -> PolicyInterface:
    """Returns the inputs and outputs of one decision of `model`."""
    inputs = [*environment.observation_leaves, TensorSpec(IS_FIRST, (), "bool")]
    if uses_previous_step:
        action = environment.action.tensor
        inputs.append(TensorSpec(PREVIOUS_ACTION, action.shape, action.dtype))
        inputs.append(TensorSpec(PREVIOUS_REWARD, (), "float32"))
    states = tuple(
        TensorSpec(f"state_{index}", spec.shape, spec.dtype)
        for index, spec in enumerate(model.agent_state_specs())
    )
    return PolicyInterface(tuple(inputs), states, environment.action.num_logits)


class SingleDecision(nn.Module):
    """A model's forward for one row, with flat inputs and outputs."""

    def __init__(
        self, model: AgentModel, environment: EnvironmentSpec, interface: PolicyInterface
    ) -> None:
        super().__init__()
        self.model = model
        self._leaf_names = [leaf.name for leaf in environment.observation_leaves]
        self._num_inputs = len(interface.inputs)
        self._previous_action = environment.action.tensor

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """Decides in every slot.

        Args:
          tensors: inputs, then states, as the interface names them.

        Returns:
          policy_logits float32 [N, P], value float32 [N], and the next states.
        """
        inputs, states = tensors[: self._num_inputs], tensors[self._num_inputs :]
        num_leaves = len(self._leaf_names)
        is_first = inputs[num_leaves]
        if self._num_inputs > num_leaves + 1:
            previous_action, previous_reward = inputs[num_leaves + 1 :]
        else:
            spec = self._previous_action
            dtype = torch.float32 if spec.dtype == "float32" else torch.int64
            previous_action = is_first.new_zeros((is_first.shape[0], *spec.shape), dtype=dtype)
            previous_reward = is_first.new_zeros((is_first.shape[0],), dtype=torch.float32)
        leaves = zip(self._leaf_names, inputs, strict=False)
        outputs = self.model(
            ModelInputs(
                {name: leaf.unsqueeze(0) for name, leaf in leaves},
                is_first.unsqueeze(0),
                previous_action.unsqueeze(0),
                previous_reward.unsqueeze(0),
            ),
            tuple(states),
        )
        return (outputs.policy_logits.squeeze(0), outputs.values.squeeze(0), *outputs.state)


def has_onnx() -> bool:
    """Returns whether the libraries are installed."""
    return all(importlib.util.find_spec(name) is not None for name in _MODULES)


def make_onnx(
    model: AgentModel,
    environment: EnvironmentSpec,
    interface: PolicyInterface,
    *,
    is_simplified: bool = True,
) -> bytes:
    """Returns the policy as an ONNX file's bytes, after comparing it with torch.

    Args:
      model: on the CPU.
      environment: specification of its environment.
      interface: from `make_interface`.
      is_simplified: whether to fold constants; else every weight stays a constant under its name.

    Raises:
      MissingExtraError: the libraries are not installed.
      ConfigError: the network cannot be traced, or the graph's outputs differ from torch's.
    """
    if not has_onnx():
        raise MissingExtraError("policy.onnx", EXTRA)
    decision = SingleDecision(model, environment, interface).eval()
    example = [torch.from_numpy(array) for array in _draw(interface, _TRACED_SLOTS, _random())]
    dynamic = torch.export.Dim.DYNAMIC
    dimensions = [{0: dynamic} for _ in interface.inputs] + [{1: dynamic} for _ in interface.states]
    try:
        with _silence():
            program = torch.onnx.export(
                decision,
                (example,),
                dynamo=True,
                dynamic_shapes=(dimensions,),
                input_names=interface.input_names,
                output_names=interface.output_names,
                optimize=is_simplified,
                verbose=False,
            )
            assert program is not None
            data = _strip(program.model_proto)
    except Exception as error:  # torch raises many kinds of errors, an own network any
        raise ConfigError(
            "--export",
            type(model).__name__,
            "a network that torch.export can trace",
            f"{_find_cause(error)}. A forward whose Python looks at the values of tensors cannot "
            "be traced; --no-onnx exports weights and policy.json alone",
        ) from error
    _compare(decision, data, interface)
    return data


def _compare(decision: SingleDecision, data: bytes, interface: PolicyInterface) -> None:
    """Raises ConfigError unless the graph's outputs equal torch's over several steps."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    random = _random()
    for num_slots in (1, 4):
        torch_states = onnx_states = _draw(interface, num_slots, random)[len(interface.inputs) :]
        for step in range(_NUM_STEPS):
            inputs = _draw(interface, num_slots, random)[: len(interface.inputs)]
            with torch.no_grad():
                wanted = [
                    tensor.numpy()
                    for tensor in decision([torch.from_numpy(a) for a in inputs + torch_states])
                ]
            got = session.run(
                interface.output_names,
                dict(zip(interface.input_names, inputs + onnx_states, strict=True)),
            )
            for name, want, have in zip(interface.output_names, wanted, got, strict=True):
                difference = compute_difference(want, have)
                if not difference <= TOLERANCE:
                    raise ConfigError(
                        "--export",
                        name,
                        f"the same in ONNX and torch to {TOLERANCE:g}",
                        f"after {step + 1} steps of {num_slots} slots they differ by "
                        f"{difference:.3g}: nothing was written; --no-onnx leaves ONNX out",
                    )
            torch_states, onnx_states = wanted[2:], list(got[2:])


def compute_difference(want: Array, have: Array) -> float:
    """Returns the largest difference, divided by the largest number wanted where it is above 1."""
    if want.shape != have.shape:
        return float("inf")
    if not want.size:
        return 0.0
    want, have = hide_masked(want), hide_masked(have)
    scale = max(1.0, float(np.abs(want).max()))
    return float(np.abs(want.astype(np.float64) - have).max()) / scale


def _draw(interface: PolicyInterface, num_slots: int, random: np.random.Generator) -> list[Array]:
    """Returns random inputs and states, in order."""
    inputs = [_draw_tensor(spec, (num_slots, *spec.shape), random) for spec in interface.inputs]
    states = [
        _draw_tensor(spec, (spec.shape[0], num_slots, *spec.shape[1:]), random)
        for spec in interface.states
    ]
    return inputs + states


def _draw_tensor(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if spec.dtype == "bool":
        return random.random(shape) < 0.3
    if spec.dtype.startswith("float") and spec.name != PREVIOUS_ACTION:
        return random.standard_normal(shape).astype(spec.dtype)
    # 0 and 1 are actions of every kind. Pixels may be anything.
    high = 256 if spec.dtype == "uint8" else 2
    return random.integers(0, high, shape).astype(spec.dtype)


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def _strip(model: Any) -> bytes:  # Any: onnx.ModelProto, which has no types
    """Returns the model without the source positions of its nodes."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    data: bytes = model.SerializeToString()
    return data


def _find_cause(error: BaseException) -> str:
    """Returns the first line of the first error in a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:400]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppresses the exporter's messages; real problems raise errors."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
