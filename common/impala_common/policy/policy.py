"""Policy: one batched inference call for all environment slots, with their recurrent state.

Owned by the actor's loop (or the evaluator). Stores the network's inputs from the step before:
previous action and reward, and, in its InferenceBackend, recurrent state. Sampling has its own
generator, so that a seed decides all actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from impala_common.policy.action_sampler import choose_actions
from impala_common.policy.inference.backend import InferenceBackend, StepInputs
from impala_common.spec.action_spec import ActionSpec

if TYPE_CHECKING:
    from impala_common.models.contract import AgentModel

Array = np.ndarray[Any, Any]


class PolicyStep(NamedTuple):
    """One decision in every slot.

    Attributes:
      actions: int64 or float32 [N, ...]: flat actions as ActionSpec.tensor says; a
        continuous one is as it was drawn, normalised and unclipped.
      logits: float32 [N, P]: the logits that the actions were drawn from.
    """

    actions: Array
    logits: Array


class Policy:
    """Chooses actions with a copy of the learner's network."""

    def __init__(
        self,
        model: AgentModel | None,
        action: ActionSpec,
        num_slots: int,
        seed: int,
        inference: InferenceBackend | None = None,
    ) -> None:
        """Acts in `num_slots` slots; sampling derives from `seed`.

        Args:
          model: the network; None: `inference` needs none.
          action: specification of an action.
          num_slots: N.
          seed: of the sampling.
          inference: backend made for `model` and `num_slots`; None: eager, in float32 on the CPU.
        """
        self._action = action
        if inference is None:
            from impala_common.policy.inference.eager import EagerInference  # loads torch

            assert model is not None
            inference = EagerInference(model, num_slots)
        self._inference = inference
        self._random = np.random.default_rng(np.random.SeedSequence((seed, 0x5A)))
        tensor = action.tensor
        self.previous_action = np.zeros((num_slots, *tensor.shape), tensor.dtype)
        self.previous_reward = np.zeros(num_slots, np.float32)

    @property
    def agent_state(self) -> tuple[Array, ...]:
        """Recurrent state before the next decision, each float32 [L, N, H]."""
        return self._inference.agent_state

    def load(self, weights: Mapping[str, Array]) -> None:
        """Loads new weights; recurrent state stays.

        Args:
          weights: every tensor of the network by name.
        """
        self._inference.load(weights)

    def act(
        self, observations: Mapping[str, Array], is_first: Array, is_greedy: bool = False
    ) -> PolicyStep:
        """Decides in every slot.

        Args:
          observations: leaf name -> [N, ...].
          is_first: bool [N]: the observation opens an episode.
          is_greedy: take the likeliest action instead of drawing one.
        """
        logits = self._inference.infer(
            StepInputs(observations, is_first, self.previous_action, self.previous_reward)
        )
        random = None if is_greedy else self._random
        actions = choose_actions(self._action, logits, random)
        self.previous_action = actions
        return PolicyStep(actions, logits)

    def observe(self, rewards: Array, is_first: Array) -> None:
        """Stores the result of the last decision.

        Args:
          rewards: float32 [N]; kept until the next `observe`, not copied.
          is_first: bool [N]: whether the new observation opens an episode.
        """
        if not np.count_nonzero(is_first):
            self.previous_reward = rewards
            return
        self.previous_reward = np.where(is_first, np.float32(0.0), rewards)
        if self.previous_action.ndim > 1:
            is_first = is_first[:, None]
        zero = self.previous_action.dtype.type(0)
        self.previous_action = np.where(is_first, zero, self.previous_action)
