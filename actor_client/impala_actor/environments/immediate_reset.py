"""ImmediateResetAdapter: vector environments whose slots are reset in the step that ends them.

SAME_STEP environments return the reset observation together with the end, and the final
observation in their infos; DISABLED ones are reset from outside, here, in the same step. The
result holds both observations. No slot pauses for another: a slot whose episode ended goes on
with the next step like all the others, and the builder of unrolls
(`impala_actor.acting.slotwise_builder`) gives it the padding row that a truncated episode needs.

A vector class that does not declare its autoreset mode is watched until its first end: if its
infos then hold final observations, it is SAME_STEP, else NEXT_STEP.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import (
    BoolArray,
    EnvironmentAdapter,
    Observations,
    StepResult,
    VectorEnvironment,
)
from impala_actor.environments.step_infos import find_final, join_infos, select_final
from impala_common.errors import FOREIGN_ERRORS, SpecMismatchError
from impala_common.spec.specs import EnvironmentSpec

Mode = Literal["same_step", "disabled", "undeclared"]

_LOG = logging.getLogger(__name__)


class ImmediateResetAdapter(EnvironmentAdapter):
    """N environment slots whose next observation, after an end, opens the next episode.

    Args:
      vector_env: a vector environment with SAME_STEP or DISABLED autoreset, or of unknown mode.
      spec: what its observations and actions look like.
      mode: which of the three.
      options: further arguments of EnvironmentAdapter.
    """

    resets_at_once = True

    def __init__(
        self,
        vector_env: VectorEnvironment,
        spec: EnvironmentSpec,
        *,
        mode: Mode,
        **options: Any,  # Any: passed on as they are
    ) -> None:
        super().__init__(vector_env, spec, **options)
        self._mode: Literal[Mode, "next_step"] = mode

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Takes one step in every slot; see EnvironmentAdapter."""
        if self._mode == "next_step":
            return super().step(actions)
        observation, rewards, terminated, truncated, infos = self._step_all(actions)
        leaves = self._make_leaves(observation)
        ended = terminated | truncated
        nothing = np.zeros(self.num_slots, np.bool_)
        if not ended.any():
            return StepResult(leaves, rewards, terminated, truncated, nothing, nothing)
        if self._mode == "undeclared":
            is_same_step = find_final(infos) is not None
            self._mode = "same_step" if is_same_step else "next_step"
            if not is_same_step:
                _LOG.warning(
                    "the vector environment declares no autoreset_mode and its infos hold no "
                    "final_obs: it is taken to reset in the step after an end (NEXT_STEP). If it "
                    "resets in the same step, it must give final_obs, or declare DISABLED: "
                    'metadata = {"autoreset_mode": ...}'
                )
                self._note_ends(ended)
                return StepResult(leaves, rewards, terminated, truncated, nothing, nothing)
        final = {name: leaf.copy() for name, leaf in leaves.items()}
        if self._masks is not None and self._mode == "same_step":
            final[self._masks.leaf.name][ended] = True  # nothing is decided there
        if self._mode == "same_step":
            self._take_final_observations(final, ended, infos)
        else:
            # The reset may clear the environment's own arrays, which these are.
            rewards, terminated, truncated = rewards.copy(), terminated.copy(), truncated.copy()
            leaves = self._reset_slots(ended)
        return StepResult(leaves, rewards, terminated, truncated, nothing, ended, final)

    def _reset_slots(self, ended: BoolArray) -> Observations:
        """Resets the slots that ended; returns the observations of all."""
        try:
            fresh, infos = self._vector_env.reset(options={"reset_mask": ended.copy()})
        except FOREIGN_ERRORS as error:
            self._raise_explained(error)
        if self._masks is not None:
            self._masks.read(join_infos(infos, self.num_slots), ended)
        return self._make_leaves(fresh)

    def _take_final_observations(
        self, leaves: Observations, ended: BoolArray, infos: Mapping[str, Any]
    ) -> None:
        """Writes the final observations of slots that ended into `leaves`.

        Raises:
          SpecMismatchError: the infos do not hold them.
        """
        final = find_final(infos)
        for slot in np.flatnonzero(ended):
            observation = None if final is None else select_final(final, int(slot))
            if observation is None:
                raise SpecMismatchError(
                    "final_obs in the infos of the environment, which resets in the step that "
                    "ends (SAME_STEP)",
                    f"the final observation of slot {slot}",
                    f"none; infos have {sorted(map(str, infos))}",
                )
            for name, leaf in self._make_leaves_of_one(observation).items():
                leaves[name][slot] = leaf
