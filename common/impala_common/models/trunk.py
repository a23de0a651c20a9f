"""Trunk: encoder, optional memory, policy head and value head.

    observations -> encoder [feature_dim] (-> LSTM, GRU or dense [hidden_dim]) -> two heads

The previous action and reward, if used, are appended to the encoder's output. A `hidden_dim` of 0
means no further layer: nature_cnn is then the usual three convolutions, dense 512 and heads, and an
LSTM or GRU is as wide as the encoder's output.

Under torch.autocast only the encoder runs in the lower precision: memory and heads, and so logits
and values, stay in float32.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.models.initialisation import (
    VALUE_HEAD_GAIN,
    initialise_head,
    initialise_layers,
)
from impala_common.models.inputs import append_previous_step
from impala_common.models.policy_head import PolicyHead
from impala_common.models.recurrent import RecurrentCore
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec


class Encoder(nn.Module, ABC):
    """From observations to a feature vector per row; `num_features` is its width."""

    num_features: int

    @abstractmethod
    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns float32 [T*B, num_features] for leaves [T, B, ...]."""


class TrunkModel(AgentModel):
    """A network whose policy and value share an encoder and, if wanted, memory."""

    def __init__(self, encoder: Encoder, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.action = environment.action
        self.uses_previous_step = spec.use_previous_action_and_reward
        width = encoder.num_features
        if self.uses_previous_step:
            width += self.action.num_inputs + 1
        self.core: RecurrentCore | None = None
        self.hidden: nn.Module = nn.Identity()
        if spec.recurrence != "none":
            core_width = spec.hidden_dim or encoder.num_features
            self.core = RecurrentCore(spec.recurrence, width, core_width, spec.init_method)
            width = core_width
        elif spec.hidden_dim:
            self.hidden = nn.Sequential(nn.Linear(width, spec.hidden_dim), nn.ReLU())
            initialise_layers(self.hidden, spec.init_method, "relu")
            width = spec.hidden_dim
        self.policy_head = PolicyHead(width, self.action, spec.init_method, spec.log_std_init)
        self.value_head = nn.Linear(width, 1)
        initialise_head(self.value_head, spec.init_method, VALUE_HEAD_GAIN)

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns the memory's state specs, or none."""
        return () if self.core is None else self.core.agent_state_specs()

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        """Runs encoder, memory and both heads; see AgentModel."""
        features = self._encode(inputs)
        rows = inputs.is_first.shape
        with _full_precision(features.device.type):
            features, state = self._remember(features, inputs, state)
            return ModelOutputs(
                policy_logits=self.policy_head(features).view(*rows, -1),
                values=self.value_head(features).view(rows),
                state=state,
            )

    def act(self, inputs: ModelInputs, state: AgentState) -> tuple[Tensor, AgentState]:
        """Runs encoder, memory and the policy head only; see AgentModel."""
        features = self._encode(inputs)
        with _full_precision(features.device.type):
            features, state = self._remember(features, inputs, state)
            policy_logits = self.policy_head(features)
            return policy_logits.view(*inputs.is_first.shape, -1), state

    def _encode(self, inputs: ModelInputs) -> Tensor:
        """Returns the encoder's output, float32 [T*B, num_features]."""
        features: Tensor = self.encoder(inputs.observations)
        return features.to(torch.float32)

    def _remember(
        self, features: Tensor, inputs: ModelInputs, state: AgentState
    ) -> tuple[Tensor, AgentState]:
        """Returns the heads' input, float32 [T*B, F], and the state after the last row."""
        if self.uses_previous_step:
            features = append_previous_step(features, inputs, self.action)
        if self.core is not None:
            rows = inputs.is_first.shape
            features, state = self.core(features.view(*rows, -1), inputs.is_first, state)
            features = features.flatten(0, 1)
        return self.hidden(features), state


def _full_precision(device_type: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context without torch.autocast."""
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()
