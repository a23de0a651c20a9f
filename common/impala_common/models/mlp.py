"""Networks for vector observations.

Without memory: a policy network and a value network that share nothing, which learns
classic control faster than a shared trunk (hidden_dim, if any, is one more hidden layer
of each). With memory: one encoder of the same hidden layers and one LSTM or GRU, shared by two
linear heads - what must be remembered is the same for both, and the value's gradient is
what teaches memory first.
All observation leaves are flattened and concatenated.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.models.initialisation import (
    VALUE_HEAD_GAIN,
    Nonlinearity,
    initialise_head,
    initialise_layers,
)
from impala_common.models.inputs import append_previous_step, prepare_vector
from impala_common.models.policy_head import PolicyHead
from impala_common.models.trunk import Encoder
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec


class SeparateMlp(AgentModel):
    """Policy network and value network of equal hidden layers, without memory."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.action = environment.action
        self.uses_previous_step = spec.use_previous_action_and_reward
        self.observation_scale = spec.observation_scale
        self.leaf_names = _leaf_names(environment)
        num_inputs = _count_inputs(environment)
        if self.uses_previous_step:
            num_inputs += self.action.num_inputs + 1
        widths = spec.hidden_sizes + ((spec.hidden_dim,) if spec.hidden_dim else ())
        self.policy_network = _make_hidden_layers(num_inputs, widths, spec)
        self.value_network = _make_hidden_layers(num_inputs, widths, spec)
        width = widths[-1] if widths else num_inputs
        self.policy_head = PolicyHead(width, self.action, spec.init_method, spec.log_std_init)
        self.value_head = nn.Linear(width, 1)
        initialise_head(self.value_head, spec.init_method, VALUE_HEAD_GAIN)

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns no specs: there is no memory."""
        return ()

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        """Runs both networks; see AgentModel."""
        features = self._prepare(inputs)
        rows = inputs.is_first.shape
        policy_logits: Tensor = self.policy_head(self.policy_network(features))
        values: Tensor = self.value_head(self.value_network(features))
        return ModelOutputs(policy_logits.view(*rows, -1), values.view(rows), state)

    def act(self, inputs: ModelInputs, state: AgentState) -> tuple[Tensor, AgentState]:
        """Runs the policy network only; see AgentModel."""
        policy_logits: Tensor = self.policy_head(self.policy_network(self._prepare(inputs)))
        return policy_logits.view(*inputs.is_first.shape, -1), state

    def _prepare(self, inputs: ModelInputs) -> Tensor:
        """Returns float32 [T*B, D]."""
        vector = prepare_vector(inputs.observations, self.leaf_names, self.observation_scale)
        if self.uses_previous_step:
            return append_previous_step(vector, inputs, self.action)
        return vector


class MlpEncoder(Encoder):
    """Hidden layers over all leaves; the encoder of the recurrent network for vectors."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.observation_scale = spec.observation_scale
        self.leaf_names = _leaf_names(environment)
        num_inputs = _count_inputs(environment)
        self.network = _make_hidden_layers(num_inputs, spec.hidden_sizes, spec)
        self.num_features = spec.hidden_sizes[-1] if spec.hidden_sizes else num_inputs

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Returns float32 [T*B, num_features]."""
        vector = prepare_vector(observations, self.leaf_names, self.observation_scale)
        features: Tensor = self.network(vector)
        return features


def _make_hidden_layers(num_inputs: int, widths: tuple[int, ...], spec: ModelSpec) -> nn.Sequential:
    nonlinearity: Nonlinearity = "tanh" if spec.activation == "tanh" else "relu"
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(num_inputs, width), nn.Tanh() if nonlinearity == "tanh" else nn.ReLU()]
        num_inputs = width
    network = nn.Sequential(*layers)
    initialise_layers(network, spec.init_method, nonlinearity)
    return network


def _leaf_names(environment: EnvironmentSpec) -> tuple[str, ...]:
    return tuple(leaf.name for leaf in environment.observation_leaves)


def _count_inputs(environment: EnvironmentSpec) -> int:
    return sum(math.prod(leaf.shape) for leaf in environment.observation_leaves)
