"""A network of one's own: a residual MLP with layer normalisation, for vector observations.

In this folder:

    impala-train --env CartPole-v1 --model own_model:ResidualMlp

or from anywhere, with the folder in PYTHONPATH. An actor on another machine needs this file and
the same option: `impala-actor --server HOST:PORT --env CartPole-v1 --model own_model:ResidualMlp`.
What a network has to keep is in docs/models.md; all of it is checked before training starts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from impala_rl import (
    AgentModel,
    AgentState,
    EnvironmentSpec,
    ModelInputs,
    ModelOutputs,
    ModelSpec,
    PolicyHead,
    TensorSpec,
)

NUM_BLOCKS = 2


class ResidualMlp(AgentModel):
    """Two residual blocks of width --hidden-sizes[0], shared by two linear heads."""

    def __init__(self, spec: ModelSpec, environment: EnvironmentSpec) -> None:
        super().__init__()
        self.names = [leaf.name for leaf in environment.observation_leaves]
        num_inputs = sum(torch.Size(leaf.shape).numel() for leaf in environment.observation_leaves)
        width = spec.hidden_sizes[0]
        self.scale = spec.observation_scale
        self.first = nn.Linear(num_inputs, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(NUM_BLOCKS))
        self.policy_head = PolicyHead(width, environment.action)
        self.value_head = nn.Linear(width, 1)

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns no specs: there is no memory."""
        return ()

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        """Runs the network on all rows at once; shapes are in docs/models.md."""
        rows = inputs.is_first.shape
        leaves = [inputs.observations[name].reshape(*rows, -1) for name in self.names]
        features: Tensor = self.first(torch.cat(leaves, dim=-1).float() * self.scale)
        for block in self.blocks:
            features = block(features)  # [T, B, width]
        values = self.value_head(features).squeeze(-1)
        return ModelOutputs(self.policy_head(features), values, state)


class _Block(nn.Module):
    """x + layers(x). Layer normalisation sees one row at a time, so it keeps the contract."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Returns float32 of the shape of `features`."""
        changed: Tensor = self.layers(features)
        return features + changed
