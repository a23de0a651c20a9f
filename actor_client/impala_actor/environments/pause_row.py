"""PauseRowAdapter: converts SAME_STEP and DISABLED autoreset to NEXT_STEP.

SAME_STEP environments return the reset observation together with the end;
DISABLED ones wait for a reset from outside. Neither has a step in which an action is ignored, so
this adapter adds one: when any slot ended, `step` returns the true final observations, and the next
`step` does not step the environment. In that pause row, slots that ended get their reset
observation and the others repeat theirs; the row is padding in all slots. This is correct, since
padding has ratio 0 and is not counted, but with many slots it is slower than NEXT_STEP. Vector
environments that this project builds itself are always NEXT_STEP.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import (
    EnvironmentAdapter,
    Observations,
    StepResult,
    VectorEnvironment,
)
from impala_actor.environments.step_values import clean_flags, clean_rewards
from impala_common.spec.specs import EnvironmentSpec


class PauseRowAdapter(EnvironmentAdapter):
    """N environment slots that all pause for one row after an end in any of them.

    Args:
      vector_env: a vector environment with SAME_STEP or DISABLED autoreset.
      spec: specification of its observations and actions.
      is_same_step: SAME_STEP (True) or DISABLED (False).
      options: further arguments of EnvironmentAdapter.
    """

    def __init__(
        self,
        vector_env: VectorEnvironment,
        spec: EnvironmentSpec,
        *,
        is_same_step: bool,
        **options: Any,  # Any: passed on unchanged
    ) -> None:
        super().__init__(vector_env, spec, **options)
        self._is_same_step = is_same_step
        self._after_pause: Observations | None = None

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Takes one step in every slot, or a pause row after an end; see EnvironmentAdapter."""
        if self._has_ended:
            return self._pause()
        if self._decode_actions is not None:
            actions = self._decode_actions(actions)
        try:
            observation, rewards, terminated, truncated, infos = self._vector_env.step(actions)
        except Exception as error:
            self._raise_explained(error)
        leaves = self._make_leaves(observation)
        nothing, num_slots = self._ended, self.num_slots
        rewards = clean_rewards(rewards, num_slots)
        terminated = clean_flags("terminated", terminated, num_slots)
        truncated = clean_flags("truncated", truncated, num_slots)
        self._ended = terminated | truncated
        self._has_ended = bool(self._ended.any())
        if self._has_ended:
            # Kept until the pause row: with SAME_STEP, ended slots already have their reset
            # observation. A copy, as the environment may reuse its buffer.
            self._after_pause = {name: leaf.copy() for name, leaf in leaves.items()}
            if self._is_same_step:
                leaves = self._with_final_observations(leaves, infos)
        return StepResult(leaves, rewards, terminated, truncated, nothing, nothing)

    def _pause(self) -> StepResult:
        """Returns the pause row: ended slots are reset, and no slot acts."""
        leaves, is_first = self._after_pause, self._ended
        assert leaves is not None
        if not self._is_same_step:
            try:
                fresh, _infos = self._vector_env.reset(options={"reset_mask": is_first.copy()})
            except Exception as error:
                self._raise_explained(error)
            for name, leaf in self._make_leaves(fresh).items():
                leaves[name][is_first] = leaf[is_first]
        self._forget_ends()
        nothing = self._ended
        return StepResult(
            leaves,
            np.zeros(self.num_slots, np.float32),
            nothing,
            nothing,
            np.ones(self.num_slots, np.bool_),
            is_first,
        )

    def _with_final_observations(self, leaves: Observations, infos: dict[str, Any]) -> Observations:
        """Returns the leaves with the final observations in the slots that ended."""
        leaves = {name: leaf.copy() for name, leaf in leaves.items()}
        for slot in np.flatnonzero(self._ended):
            for name, leaf in self._make_leaves_of_one(infos["final_obs"][slot]).items():
                leaves[name][slot] = leaf
        return leaves

    def _forget_ends(self) -> None:
        super()._forget_ends()
        self._after_pause = None
