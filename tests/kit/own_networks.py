"""User-supplied networks for `--model own_networks:Name`, and their makers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from impala_common.config.sections import ModelConfig
from impala_common.models.contract import (
    AgentModel,
    AgentState,
    ModelInputs,
    ModelOutputs,
    make_state_specs,
)
from impala_common.models.registry import make_model, register_model, resolve_model_spec
from impala_common.models.trunk import Encoder
from impala_common.spec.action_spec import ActionSpec
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec

ENVIRONMENT = EnvironmentSpec((TensorSpec("observation", (5,), "float32"),), ActionSpec.discrete(4))


def make(name: str, environment: EnvironmentSpec = ENVIRONMENT, **config: Any) -> AgentModel:
    return make_model(
        resolve_model_spec(ModelConfig(model=name, **config), environment), environment, 1
    )


def make_object(
    maker: Callable[..., Any], environment: EnvironmentSpec = ENVIRONMENT
) -> AgentModel:
    """Returns what a maker that the class handed over makes."""
    register_model("object:net", maker)
    return make("object:net", environment)


class Plain(nn.Module):
    """No AgentModel, no memory."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        (leaf,) = environment.observation_leaves
        self.name = leaf.name
        self.body = nn.Sequential(nn.Linear(leaf.shape[0], 16), nn.Tanh())
        self.policy = nn.Linear(16, environment.action.num_logits)
        self.value = nn.Linear(16, 1)

    def features(self, inputs: ModelInputs) -> Tensor:
        return self.body(inputs.observations[self.name].float())

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        features = self.features(inputs)
        return ModelOutputs(self.policy(features), self.value(features).squeeze(-1), state)


class Wide(Plain):
    """One action too many."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__(spec, environment)
        self.policy = nn.Linear(16, environment.action.num_logits + 1)


class Features(Encoder):
    """An encoder alone."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.name = environment.observation_leaves[0].name
        self.num_features = spec.feature_dim
        self.layer = nn.Linear(environment.observation_leaves[0].shape[0], spec.feature_dim)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        return torch.relu(self.layer(observations[self.name].flatten(0, 1).float()))


class Remembering(AgentModel):
    """A GRU cell, row by row, fed with the previous action and reward as well."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        (leaf,) = environment.observation_leaves
        self.name = leaf.name
        self.num_actions = environment.action.num_logits
        self.cell = nn.GRUCell(leaf.shape[0] + self.num_actions + 1, 8)
        self.heads = nn.Linear(8, self.num_actions + 1)

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        return make_state_specs((1, 8))

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        actions = nn.functional.one_hot(inputs.previous_actions, self.num_actions).float()
        actions = actions.masked_fill(inputs.is_first.unsqueeze(-1), 0.0)
        rows = torch.cat(
            (
                inputs.observations[self.name].float(),
                actions,
                inputs.previous_rewards.unsqueeze(-1),
            ),
            dim=-1,
        )
        hidden = state[0][0]
        outputs = []
        for row, is_first in zip(rows, inputs.is_first, strict=True):
            hidden = self.cell(row, hidden.masked_fill(is_first.unsqueeze(-1), 0.0))
            outputs.append(self.heads(hidden))
        stacked = torch.stack(outputs)
        return ModelOutputs(stacked[..., :-1], stacked[..., -1], (hidden.unsqueeze(0),))


class Unmakeable(Plain):
    """Raises where it is made."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        raise KeyError("a table that is missing here")


no_class = 3
