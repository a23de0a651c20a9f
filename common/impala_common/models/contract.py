"""AgentModel: the inputs and outputs of every network.

Learner and actors use networks through `AgentModel` only. Both call the same `forward` code: the
learner on `[T+1, B]` rows with gradients, actors on one row `[1, N]` without. Recurrent state is an
input and an output; a model stores none.

Rules for an own network (`--model module:Class`), checked by `impala_common.models.validation`
before training starts; examples are in docs/models.md:

1. It is made as Class(spec: ModelSpec, environment: EnvironmentSpec) and is an AgentModel, an
   Encoder (`impala_common.models.trunk`), or any nn.Module with this forward(inputs, state).
2. Outputs have the shapes of ModelOutputs, are float32, finite, on the inputs' device.
3. Columns are independent of each other, and row t of later rows.
4. State is set to 0 before a row where is_first; `act` row by row equals `forward` at once.
5. train() and eval() give the same: V-trace compares what both sides compute.
6. Inputs are not changed in place; parameters and buffers are, or stay the same tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from impala_common.spec.specs import TensorSpec

AgentState = tuple[Tensor, ...]
"""Recurrent state: tensors [L, B, H], empty for a model without memory."""


def make_state_specs(*shapes: tuple[int, int]) -> tuple[TensorSpec, ...]:
    """Returns the specs of recurrent tensors of these shapes (L, H)."""
    return tuple(
        TensorSpec(f"initial_agent_state/{index}", shape, "float32")
        for index, shape in enumerate(shapes)
    )


class ModelInputs(NamedTuple):
    """Inputs of a model. Actors use T=1 (one row), the learner T+1 rows.

    Attributes:
      observations: leaf name -> [T, B, ...] in the element type of the environment.
      is_first: bool [T, B]: the observation opens an episode; state is reset before it.
      previous_actions: [T, B, ...]: flat actions that led to the observations, as
        ActionSpec.tensor says (int64 [T, B] for a plain Discrete); ignored where is_first.
      previous_rewards: float32 [T, B]: rewards that came with the observations, raw;
        0 where is_first.
    """

    observations: dict[str, Tensor]
    is_first: Tensor
    previous_actions: Tensor
    previous_rewards: Tensor


class ModelOutputs(NamedTuple):
    """Outputs of a model.

    Attributes:
      policy_logits: float32 [T, B, P], P as ActionSpec.num_logits says.
      values: float32 [T, B].
      state: state after the last row.
    """

    policy_logits: Tensor
    values: Tensor
    state: AgentState


class AgentModel(nn.Module, ABC):
    """A network with a policy head and a value head."""

    @abstractmethod
    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns one spec per recurrent tensor, shape (L, H), empty without memory."""

    @abstractmethod
    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        """Runs the network over all rows.

        Args:
          inputs: see ModelInputs.
          state: state before row 0.

        Returns:
          ModelOutputs.
        """

    def initial_state(self, batch_size: int) -> AgentState:
        """Returns the state of B fresh episodes: zeros on the parameters' device."""
        device = next(self.parameters()).device
        return tuple(
            torch.zeros(
                spec.shape[0], batch_size, *spec.shape[1:], dtype=torch.float32, device=device
            )
            for spec in self.agent_state_specs()
        )

    def act(self, inputs: ModelInputs, state: AgentState) -> tuple[Tensor, AgentState]:
        """Returns policy_logits [T, B, P] and the next state; models may skip the value."""
        outputs: ModelOutputs = self(inputs, state)
        return outputs.policy_logits, outputs.state
