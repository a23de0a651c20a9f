"""PauseRowAdapter: converts SAME_STEP and DISABLED autoreset to NEXT_STEP.

SAME_STEP environments return the reset observation together with the end;
DISABLED ones wait for a reset from outside. Neither has a step in which an
action is ignored, so this adapter makes one: when any slot ended, `step`
returns the true final observations, and the next `step` leaves the environment
alone. Slots that ended get their reset observation in that pause row, the others
repeat theirs, and the row is padding in all slots: correct, since padding
has ratio 0 and counts nowhere, but slower than NEXT_STEP the more slots there
are. Vector environments that this project builds itself are always NEXT_STEP.
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
from impala_common.spec.specs import EnvironmentSpec


class PauseRowAdapter(EnvironmentAdapter):
    """N environment slots that all pause for one row after an end in any of them.

    Args:
      vector_env: a vector environment with SAME_STEP or DISABLED autoreset.
      spec: what its observations and actions look like.
      is_same_step: SAME_STEP (True) or DISABLED (False).
      options: further arguments of EnvironmentAdapter.
    """

    def __init__(
        self,
        vector_env: VectorEnvironment,
        spec: EnvironmentSpec,
        *,
        is_same_step: bool,
        **options: Any,  # Any: passed on as they are
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
        nothing = self._ended
        self._ended = terminated | truncated
        self._has_ended = bool(self._ended.any())
        if self._has_ended:
            # Kept until the pause row: with SAME_STEP, ended slots already hold their reset
            # observation here. A copy, for the environment may use its buffer again.
            self._after_pause = {name: leaf.copy() for name, leaf in leaves.items()}
            if self._is_same_step:
                leaves = self._with_final_observations(leaves, infos)
        return StepResult(
            leaves, rewards.astype(np.float32), terminated, truncated, nothing, nothing
        )

    def _pause(self) -> StepResult:
        """Returns the row in which ended slots are reset and nobody acts."""
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
