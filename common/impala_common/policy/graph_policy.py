"""GraphPolicy: an exported policy.onnx, run by onnxruntime without torch (extra `onnx`).

Returned by `load_policy` where torch is missing or `runtime="onnx"` is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from impala_common.errors import CheckpointError, MissingExtraError
from impala_common.policy.frozen_policy import FrozenPolicy
from impala_common.policy.inference.backend import Array, InferenceBackend, StepInputs
from impala_common.policy.policy import Policy
from impala_common.spec.tensor_spec import TensorSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphPolicy(FrozenPolicy):
    """A FrozenPolicy that runs in onnxruntime.

    Attributes:
      session: onnxruntime.InferenceSession of the graph.
      states: recurrent tensors of the graph, each of shape (L, H).
    """

    session: Any  # Any: onnxruntime has no types
    states: tuple[TensorSpec, ...]

    def make_policy(self, num_slots: int, seed: int = 0) -> Policy:
        """See FrozenPolicy."""
        return Policy(None, self.environment.action, num_slots, seed, GraphInference(self))

    def run_network(
        self, inputs: StepInputs, agent_state: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, ...]]:
        """See FrozenPolicy."""
        num_slots = len(inputs.is_first)
        state = agent_state or tuple(
            np.zeros((spec.shape[0], num_slots, *spec.shape[1:]), np.float32)
            for spec in self.states
        )
        arrays: dict[str, Array] = {
            **inputs.observations,
            "is_first": inputs.is_first,
            "previous_action": inputs.previous_actions,
            "previous_reward": inputs.previous_rewards,
            **{spec.name: array for spec, array in zip(self.states, state, strict=True)},
        }
        names = {node.name for node in self.session.get_inputs()}
        outputs = ["policy_logits", *(f"next_{spec.name}" for spec in self.states)]
        logits, *next_state = self.session.run(
            outputs, {name: array for name, array in arrays.items() if name in names}
        )
        return logits, tuple(next_state)


class GraphInference(InferenceBackend):
    """Runs a GraphPolicy step by step, for `Policy`."""

    name: ClassVar[str] = "graph"
    tolerance: ClassVar[float] = 1e-3

    def __init__(self, policy: GraphPolicy) -> None:
        self._policy = policy
        self._state: tuple[Array, ...] = ()

    def load(self, weights: Mapping[str, Array]) -> None:
        """Refuses: the weights are constants of the graph."""
        raise AssertionError("the weights of a graph cannot be replaced")

    def infer(self, inputs: StepInputs) -> Array:
        """See InferenceBackend."""
        logits, self._state = self._policy.run_network(inputs, self._state)
        return logits

    @property
    def agent_state(self) -> tuple[Array, ...]:
        """See InferenceBackend."""
        return self._state

    @agent_state.setter
    def agent_state(self, state: tuple[Array, ...]) -> None:
        """See InferenceBackend."""
        self._state = state

    def reset(self) -> None:
        """See InferenceBackend."""
        self._state = ()


def make_session(graph: bytes, path: object) -> Any:  # Any: onnxruntime has no types
    """Returns an onnxruntime session on one CPU thread.

    Raises:
      MissingExtraError: onnxruntime is not installed.
      CheckpointError: onnxruntime refuses the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("policy.onnx", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise CheckpointError(f"{path} cannot be used: {error}") from error
