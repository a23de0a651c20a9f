"""SlotwiseUnrollBuilder: unrolls of environments that reset a slot in the step that ends it.

There the final observation and the first one of the next episode arrive together. A truncated
episode needs a row for its final observation, from whose value it bootstraps: a padding row, in
that slot only. So slots fill their unrolls at different speeds. An unroll is complete when the
fastest slot has T rows; the last rows of slower slots become padding that repeats the current
observation. Nothing after them in the same unroll reads them, and the next unroll begins at that
observation with the recurrent state, action and reward before it: padding is neutral for memory.

A terminated episode needs no such row: nothing is bootstrapped (ADR 0002).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from impala_actor.acting.unroll_builder import Array, UnrollBuilder
from impala_actor.environments.adapter import StepResult
from impala_common.codec.unrolls import Unrolls
from impala_common.policy.policy import PolicyStep
from impala_common.spec.specs import UnrollSpec


class SlotwiseUnrollBuilder(UnrollBuilder):
    """N unrolls of T rows in the making, each with a position of its own."""

    def __init__(self, spec: UnrollSpec, num_slots: int) -> None:
        """Prepares arrays for N unrolls of `spec`, which have no unique frames."""
        assert not spec.uses_unique_frames, "frame stacks come from NEXT_STEP environments only"
        super().__init__(spec, num_slots)
        self._length = spec.unroll_length
        self._slots = np.arange(num_slots)
        self._rows = np.zeros(num_slots, np.int64)  # of the next decision of each slot
        self._carried = np.zeros(num_slots, np.bool_)  # its final observation is still to come
        self._final: dict[str, Array] = {}
        self._last_action: Array = np.zeros(0)
        self._last_reward: Array = np.zeros(0)

    @property
    def is_complete(self) -> bool:
        """Whether a slot has T rows."""
        return bool(self._rows.max() == self._length)

    def begin(
        self,
        observations: Mapping[str, Array],
        is_first: Array,
        agent_state: tuple[Array, ...],
        previous_action: Array,
        previous_reward: Array,
    ) -> None:
        """Starts the next unrolls; see UnrollBuilder.

        Where an episode was truncated in the last row, row 0 is its final observation.
        """
        super().begin(observations, is_first, agent_state, previous_action, previous_reward)
        self._rows[:] = 0
        slots = np.flatnonzero(self._carried)
        self._carried[:] = False
        if not slots.size:
            return
        arrays = self._arrays
        for name, array in self._observations.items():
            array[0, slots] = self._final[name][slots]
        arrays["is_first"][0, slots] = False
        arrays["previous_action"][slots] = self._last_action[slots]
        arrays["previous_reward"][slots] = self._last_reward[slots]
        self._pad(slots, observations)

    def add(self, decision: PolicyStep, result: StepResult) -> None:
        """Adds a row to each slot, and a padding row to those that were truncated and reset."""
        rows, slots, arrays = self._rows, self._slots, self._arrays
        arrays["actions"][rows, slots] = decision.actions
        arrays["behaviour_policy_logits"][rows, slots] = decision.logits
        arrays["rewards"][rows, slots] = result.rewards
        arrays["terminated"][rows, slots] = result.terminated
        arrays["truncated"][rows, slots] = result.truncated
        arrays["is_padding"][rows, slots] = result.is_padding
        rows += 1
        arrays["is_first"][rows, slots] = result.is_first
        for name, array in self._observations.items():
            array[rows, slots] = result.observations[name]
        if result.final_observations is not None:
            self._add_final(decision, result, result.final_observations)

    def forget(self) -> None:
        """Drops final observations that are still to come: all slots were started anew."""
        self._carried[:] = False

    @property
    def unrolls(self) -> Unrolls:
        """The completed unrolls, valid until the next `begin`."""
        if self._unrolls is None:
            self._fill_up()
        self._row = self._length
        return super().unrolls

    def _add_final(
        self, decision: PolicyStep, result: StepResult, final: Mapping[str, Array]
    ) -> None:
        needs_row = result.truncated & ~result.terminated
        slots = np.flatnonzero(needs_row)
        rows = self._rows[slots]
        for name, array in self._observations.items():
            array[rows, slots] = final[name][slots]
        self._arrays["is_first"][rows, slots] = False
        has_room = rows < self._length
        self._pad(slots[has_room], result.observations)
        if not has_room.all():
            self._carried[slots[~has_room]] = True
            self._final = {name: final[name].copy() for name in self._observations}
            self._last_action = np.array(decision.actions)
            self._last_reward = np.array(result.rewards)

    def _pad(self, slots: Array, observations: Mapping[str, Array]) -> None:
        """Adds a padding row that leads to `observations`, which open episodes."""
        rows = self._rows[slots]
        self._clear(rows, slots)
        for name, array in self._observations.items():
            array[rows + 1, slots] = observations[name][slots]
        self._arrays["is_first"][rows + 1, slots] = True
        self._rows[slots] += 1

    def _fill_up(self) -> None:
        """Makes padding of the rows that slower slots have left."""
        for slot in np.flatnonzero(self._rows < self._length):
            row = self._rows[slot]
            self._clear(slice(row, None), slot)
            for array in (*self._observations.values(), self._arrays["is_first"]):
                array[row + 1 :, slot] = array[row, slot]

    def _clear(self, rows: Array | slice, slots: Array | np.int64) -> None:
        """Makes rows padding: no action, no reward, no end."""
        for name in ("actions", "behaviour_policy_logits", "rewards", "terminated", "truncated"):
            self._arrays[name][rows, slots] = 0
        self._arrays["is_padding"][rows, slots] = True
