"""InferenceBackend: the interface of one inference step for all slots.

Called by `impala_common.policy.policy` only, on the actor's thread. Actions are drawn from a
backend's logits and unrolls report the same logits, so its rounding never makes the learner's
importance ratios wrong. A backend stores the recurrent state in a form of its own (tensors,
arrays).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]  # Any: shapes and element types as the docstrings say


class UnsuitableModelError(Exception):
    """This backend cannot run this network on this machine; the text has the reason.

    Never leaves `impala_common.policy.inference`: another backend is used.
    """


class StepInputs(NamedTuple):
    """Inputs of the network in one step. N is the number of slots.

    Attributes:
      observations: leaf name -> [N, ...].
      is_first: bool [N]: the observation opens an episode.
      previous_actions: [N, ...]: flat actions as ActionSpec.tensor says.
      previous_rewards: float32 [N].
    """

    observations: Mapping[str, Array]
    is_first: Array
    previous_actions: Array
    previous_rewards: Array


class InferenceBackend(ABC):
    """Computes logits with the weights of the last `load`."""

    name: ClassVar[str]
    """Name in `--inference-backend`."""
    tolerance: ClassVar[float]
    """Largest difference of a logit to eager float32 with the same weights and state; a share of
    the largest logit where that is above 1."""

    @abstractmethod
    def load(self, weights: Mapping[str, Array]) -> None:
        """Copies new weights, every tensor of the network by name; recurrent state stays."""

    @abstractmethod
    def infer(self, inputs: StepInputs) -> Array:
        """Returns float32 [N, P], owned by the caller, and advances the state by a step.

        A backend without memory takes any number of rows up to N, and so does one with memory whose
        `agent_state` was set to as many.
        """

    @property
    def agent_state(self) -> tuple[Array, ...]:
        """Recurrent state before the next step, each float32 [L, N, H]; none without memory."""
        return ()

    @agent_state.setter
    def agent_state(self, state: tuple[Array, ...]) -> None:
        """Sets it, for as many rows as the next step has; not copied."""
        assert not state, f"backend {self.name} has no memory"

    def reset(self) -> None:  # noqa: B027 (nothing to do without memory)
        """Resets the recurrent state to that of fresh episodes in all slots."""
