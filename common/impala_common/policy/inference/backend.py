"""InferenceBackend: the interface of one inference step for all slots.

Called by `impala_common.policy.policy` only, on the actor's thread. What a backend returns is
what actions are drawn from and what the unroll reports, so its rounding never makes the
learner's importance ratios wrong: they are taken against the logits that sampled. It
keeps the recurrent state, because its form (tensors, arrays) is its own business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]  # Any: shapes and element types as the docstrings say


class UnsuitableModelError(Exception):
    """This backend cannot run this network, or not here; the text says why.

    Never leaves `impala_common.policy.inference`: another backend is taken.
    """


class StepInputs(NamedTuple):
    """What the network consumes in one step. N is the number of slots.

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
    """Computes logits with the newest weights it was given."""

    name: ClassVar[str]
    """As `--inference-backend` calls it."""
    tolerance: ClassVar[float]
    """Largest difference of a logit to eager float32 with the same weights and state; a share of
    the largest logit where that is above 1."""

    @abstractmethod
    def load(self, weights: Mapping[str, Array]) -> None:
        """Takes over new weights, every tensor of the network by name; state stays."""

    @abstractmethod
    def infer(self, inputs: StepInputs) -> Array:
        """Returns float32 [N, P], an array of the caller's, and moves the state on by a step."""

    @property
    def agent_state(self) -> tuple[Array, ...]:
        """Recurrent state before the next step, each float32 [L, N, H]; none without memory."""
        return ()

    def reset(self) -> None:  # noqa: B027 (nothing to do without memory)
        """Makes the recurrent state that of fresh episodes in all slots."""
