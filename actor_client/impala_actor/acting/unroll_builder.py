"""UnrollBuilder: collects T steps of N environment slots into N unrolls.

Owned by the actor's loop. Row t is the decision taken at observation t and its result; nothing is
shifted. The last observation of one unroll is the first of the next, and only it is carried over.
Every unroll uses the same arrays: pack them before the next step. Where observations are
stacks of frames, only new frames are kept (`FrameStore`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from impala_actor.acting.frame_store import FrameStore
from impala_actor.environments.adapter import StepResult
from impala_common.codec.unrolls import Unrolls
from impala_common.policy.policy import PolicyStep
from impala_common.spec.specs import UnrollSpec

Array = np.ndarray[Any, Any]


class UnrollBuilder:
    """Collects N unrolls of T steps."""

    def __init__(self, spec: UnrollSpec, num_slots: int) -> None:
        """Prepares arrays for N unrolls of `spec`; `begin` comes first."""
        self._spec = spec
        self._num_slots = num_slots
        self._frames = FrameStore(spec, num_slots) if spec.uses_unique_frames else None
        self._frame_name = spec.frame_leaf.name
        self._arrays: dict[str, Array] = {
            leaf.tensor.name: np.zeros(leaf.shape(spec.unroll_length, num_slots), leaf.tensor.dtype)
            for leaf in spec.leaves[0 if self._frames is None else 1 :]
        }
        self._observations = {
            leaf.name: self._arrays[leaf.name]
            for leaf in spec.environment.observation_leaves
            if leaf.name in self._arrays
        }
        self._row = 0
        self._unrolls: Unrolls | None = None

    @property
    def is_complete(self) -> bool:
        """Whether T steps have been added."""
        return self._row == self._spec.unroll_length

    def begin(
        self,
        observations: Mapping[str, Array],
        is_first: Array,
        agent_state: tuple[Array, ...],
        previous_action: Array,
        previous_reward: Array,
    ) -> None:
        """Starts the next unrolls.

        Args:
          observations: leaf name -> [N, ...]: observation 0.
          is_first: bool [N]: whether it opens an episode.
          agent_state: recurrent state before it, each [L, N, H].
          previous_action: [N, ...]: action before observation 0; 0 after a reset.
          previous_reward: float32 [N]: reward that came with observation 0; 0 after a reset.
        """
        self._row, self._unrolls = 0, None
        arrays = self._arrays
        if self._frames is not None:
            self._frames.begin(observations[self._frame_name])
        for name, array in self._observations.items():
            array[0] = observations[name]
        arrays["is_first"][0] = is_first
        arrays["previous_action"][:] = previous_action
        arrays["previous_reward"][:] = previous_reward
        for spec, state in zip(self._spec.agent_state, agent_state, strict=True):
            arrays[spec.name][:] = state.swapaxes(0, 1)  # [L, N, H] -> [N, L, H]

    def add(self, decision: PolicyStep, result: StepResult) -> None:
        """Adds row t: the decision at the last observation, and its result."""
        t, arrays = self._row, self._arrays
        arrays["actions"][t] = decision.actions
        arrays["behaviour_policy_logits"][t] = decision.logits
        arrays["rewards"][t] = result.rewards
        arrays["terminated"][t] = result.terminated
        arrays["truncated"][t] = result.truncated
        arrays["is_padding"][t] = result.is_padding
        arrays["is_first"][t + 1] = result.is_first
        if self._frames is not None:
            self._frames.add(result.observations[self._frame_name])
        for name, array in self._observations.items():
            array[t + 1] = result.observations[name]
        self._row = t + 1

    def forget(self) -> None:
        """Drops what would be carried over to the next unroll: all slots were started anew."""

    @property
    def unrolls(self) -> Unrolls:
        """The completed unrolls, valid until the next `begin`."""
        assert self.is_complete
        if self._unrolls is None:
            frames = None if self._frames is None else self._frames.unique_frames()
            self._unrolls = Unrolls(self._num_slots, self._arrays, frames)
        return self._unrolls
