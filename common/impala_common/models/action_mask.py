"""MaskedModel: a network whose policy gives illegal actions no probability.

Wraps any network of an environment that has a leaf with the role `action_mask`. The mask is part
of the observation, so learner, actors, evaluation and exported policies all get the same logits
from the same forward (docs/adr/0034).
"""

from __future__ import annotations

import torch
from torch import Tensor

from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.spec.action_spec import MASKED_LOGIT, ActionSpec
from impala_common.spec.specs import EnvironmentSpec, TensorSpec


class MaskedModel(AgentModel):
    """A network, and the mask of legal actions applied to its logits."""

    def __init__(self, network: AgentModel, environment: EnvironmentSpec) -> None:
        """Wraps `network`; `environment` must have a leaf that is an action mask."""
        super().__init__()
        assert environment.action_mask is not None
        self.network = network
        self._mask_name = environment.action_mask.name
        self._action = environment.action

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns those of the network."""
        return self.network.agent_state_specs()

    def initial_state(self, batch_size: int) -> AgentState:
        """Returns that of the network."""
        return self.network.initial_state(batch_size)

    def forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        """Runs the network and masks its logits; see AgentModel."""
        outputs: ModelOutputs = self.network(inputs, state)
        return outputs._replace(policy_logits=self._mask(outputs.policy_logits, inputs))

    def act(self, inputs: ModelInputs, state: AgentState) -> tuple[Tensor, AgentState]:
        """Runs the network's policy and masks its logits; see AgentModel."""
        logits, state = self.network.act(inputs, state)
        return self._mask(logits, inputs), state

    def _mask(self, logits: Tensor, inputs: ModelInputs) -> Tensor:
        return mask_logits(logits, inputs.observations[self._mask_name], self._action)


def mask_logits(logits: Tensor, mask: Tensor, action: ActionSpec) -> Tensor:
    """Returns logits in which illegal choices are MASKED_LOGIT.

    A component without any legal choice is left as it is: its episode is over, or its environment
    gave no mask.

    Args:
      logits: float32 [T, B, P].
      mask: any type, [T, B, ...] of P elements: 0 is illegal.
      action: parts that are all categorical.
    """
    legal = mask.flatten(2) != 0
    parts = []
    for group in action.groups:
        shape = (*legal.shape[:-1], group.num_components, group.size)
        choices = legal[..., group.logits].reshape(shape)
        parts.append((choices | ~choices.any(dim=-1, keepdim=True)).flatten(-2))
    allowed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return logits.masked_fill(~allowed, MASKED_LOGIT)
