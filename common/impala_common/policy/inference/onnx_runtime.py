"""OnnxRuntimeInference: the network as an ONNX graph in onnxruntime (extra `onnx`).

Faster than torch for most networks, but making the graph takes seconds of CPU time and 180 MB, so
it is never chosen automatically. Weights are inputs of the graph, so new weights need no new graph.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from impala_common.errors import ConfigError
from impala_common.models.contract import AgentModel
from impala_common.policy.inference.backend import (
    Array,
    InferenceBackend,
    StepInputs,
    UnsuitableModelError,
)
from impala_common.policy.onnx_graph import (
    EXTRA,
    IS_FIRST,
    POLICY_LOGITS,
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
    VALUE,
    has_onnx,
    make_interface,
    make_onnx,
)
from impala_common.spec.specs import EnvironmentSpec

_PREFIX = "model."  # of the network's tensors in the graph


class OnnxRuntimeInference(InferenceBackend):
    """Runs the policy's part of a graph that was compared with torch."""

    name: ClassVar[str] = "onnxruntime"
    tolerance: ClassVar[float] = 1e-3

    def __init__(
        self,
        model: AgentModel,
        environment: EnvironmentSpec,
        num_slots: int,
        num_threads: int,
        graph: Any = None,  # Any: onnx.ModelProto, which has no types
    ) -> None:
        """Starts from the present weights of `model`.

        Args:
          model: the network.
          environment: specification of its inputs.
          num_slots: N.
          num_threads: CPU threads of one call.
          graph: from `make_graph`, for any number of slots; None: it is made now.

        Raises:
          UnsuitableModelError: the extra is missing, or the network cannot be traced.
        """
        graph = make_graph(model, environment) if graph is None else graph
        import onnxruntime

        interface = make_interface(model, environment, uses_previous_step=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self._to_value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._input_names = {node.name for node in self._session.get_inputs()}
        self._weight_names = [
            name.removeprefix(_PREFIX) for name in self._input_names if name.startswith(_PREFIX)
        ]
        self._state_specs = interface.states
        self._outputs = [POLICY_LOGITS, *(f"next_{spec.name}" for spec in interface.states)]
        self._num_slots = num_slots
        self.reset()
        self.load({name: value.cpu().numpy() for name, value in model.state_dict().items()})

    def reset(self) -> None:
        """See InferenceBackend."""
        self._state = {
            spec.name: np.zeros((spec.shape[0], self._num_slots, *spec.shape[1:]), np.float32)
            for spec in self._state_specs
        }

    def load(self, weights: Mapping[str, Array]) -> None:
        """See InferenceBackend."""
        # A value may share the array's memory, so this object has a copy, which is replaced as a
        # whole.
        self._arrays = {name: np.array(weights[name]) for name in self._weight_names}
        for name, array in self._arrays.items():
            self._binding.bind_ortvalue_input(_PREFIX + name, self._to_value(array))

    def infer(self, inputs: StepInputs) -> Array:
        """See InferenceBackend."""
        arrays = {
            **inputs.observations,
            IS_FIRST: inputs.is_first,
            PREVIOUS_ACTION: inputs.previous_actions,
            PREVIOUS_REWARD: inputs.previous_rewards,
            **self._state,
        }
        binding = self._binding
        for name, array in arrays.items():
            if name in self._input_names:
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self._outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        logits, *state = binding.copy_outputs_to_cpu()
        for name, array in zip(self._state, state, strict=True):
            self._state[name] = array
        drawn_from: Array = logits
        return drawn_from

    @property
    def agent_state(self) -> tuple[Array, ...]:
        """See InferenceBackend."""
        return tuple(self._state.values())

    @agent_state.setter
    def agent_state(self, state: tuple[Array, ...]) -> None:
        """See InferenceBackend."""
        self._state = dict(zip(self._state, state, strict=True))


def make_graph(model: AgentModel, environment: EnvironmentSpec) -> Any:  # Any: onnx.ModelProto
    """Returns the policy of `model` with its weights as inputs; takes seconds.

    Raises:
      UnsuitableModelError: the extra is missing, or the network cannot be traced.
    """
    if not has_onnx():
        raise UnsuitableModelError(f"the extra {EXTRA} is not installed")
    import onnx

    interface = make_interface(model, environment, uses_previous_step=True)
    traced = _make_distinct(model)
    try:
        data = make_onnx(traced, environment, interface, is_simplified=False)
    except ConfigError as error:
        raise UnsuitableModelError(str(error)) from error
    graph = onnx.load_from_string(data)
    _make_weights_inputs(graph, set(model.state_dict()))
    return graph


def _make_distinct(model: AgentModel) -> AgentModel:
    """Returns a copy with other weights, no two tensors alike.

    The exporter merges equal tensors, such as biases of zeros, and drops operations without effect:
    such a graph could not take other weights.
    """
    distinct = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in distinct.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.01 + 0.01 * torch.rand(tensor.shape, generator=generator)
    return distinct


def _make_weights_inputs(graph: Any, names: set[str]) -> None:  # Any: onnx.ModelProto
    """Moves the network's weights from the graph's constants to its inputs; drops the value."""
    import onnx

    constants = graph.graph.initializer
    for item in [item for item in constants if item.name.removeprefix(_PREFIX) in names]:
        constants.remove(item)
        graph.graph.input.append(
            onnx.helper.make_tensor_value_info(item.name, item.data_type, list(item.dims))
        )
    outputs = [item for item in graph.graph.output if item.name != VALUE]
    del graph.graph.output[:]
    graph.graph.output.extend(outputs)
