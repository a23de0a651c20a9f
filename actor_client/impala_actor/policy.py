"""The policy as an actor runs it: one batched call for all environment slots.

Owned by the actor's loop (or the evaluator). Keeps what the network needs from
one step to the next: recurrent state, previous action and reward. Sampling has
a generator of its own, so that a seed decides everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from impala_actor.action_sampler import choose_actions
from impala_common.action_spec import ActionSpec
from impala_common.models.contract import AgentModel, ModelInputs

Array = np.ndarray[Any, Any]


class PolicyStep(NamedTuple):
    """One decision in every slot.

    Attributes:
      actions: int64 or float32 [N, ...]: flat actions as ActionSpec.tensor says; a
        continuous one is as it was drawn, normalised and unclipped.
      logits: float32 [N, P]: what the actions were drawn from.
    """

    actions: Array
    logits: Array


class Policy:
    """Chooses actions with a copy of the learner's network."""

    def __init__(
        self,
        model: AgentModel,
        action: ActionSpec,
        num_slots: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Acts in `num_slots` slots; sampling derives from `seed`."""
        self._action = action
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        self._weights = {name: value.detach() for name, value in model.state_dict().items()}
        self._random = np.random.default_rng(np.random.SeedSequence((seed, 0x5A)))
        self._state = tuple(s.to(self._device) for s in model.initial_state(num_slots))
        tensor = action.tensor
        self.previous_action = np.zeros((num_slots, *tensor.shape), tensor.dtype)
        self.previous_reward = np.zeros(num_slots, np.float32)

    @property
    def agent_state(self) -> tuple[Array, ...]:
        """Recurrent state before the next decision, each float32 [L, N, H]."""
        return tuple(state.cpu().numpy() for state in self._state)

    def load(self, weights: Mapping[str, Array]) -> None:
        """Takes over new weights; recurrent state stays.

        Args:
          weights: every tensor of the network by name.
        """
        with torch.no_grad():
            targets = list(self._weights.values())
            sources = [torch.from_numpy(weights[name]) for name in self._weights]
            torch._foreach_copy_(targets, sources)

    def act(
        self, observations: Mapping[str, Array], is_first: Array, is_greedy: bool = False
    ) -> PolicyStep:
        """Decides in every slot.

        Args:
          observations: leaf name -> [N, ...].
          is_first: bool [N]: the observation opens an episode.
          is_greedy: take the likeliest action instead of drawing one.
        """
        with torch.inference_mode():
            inputs = ModelInputs(
                {name: self._tensor(array) for name, array in observations.items()},
                self._tensor(is_first),
                self._tensor(self.previous_action),
                self._tensor(self.previous_reward),
            )
            logits_row, self._state = self._model.act(inputs, self._state)
            logits = logits_row[0].cpu().numpy()
        random = None if is_greedy else self._random
        actions = choose_actions(self._action, logits, random)
        self.previous_action = actions
        return PolicyStep(actions, logits)

    def observe(self, rewards: Array, is_first: Array) -> None:
        """Notes what the last decision led to.

        Args:
          rewards: float32 [N].
          is_first: bool [N]: whether the new observation opens an episode.
        """
        self.previous_reward = np.where(is_first, np.float32(0.0), rewards)
        if self.previous_action.ndim > 1:
            is_first = is_first[:, None]
        zero = self.previous_action.dtype.type(0)
        self.previous_action = np.where(is_first, zero, self.previous_action)

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device).unsqueeze(0)
