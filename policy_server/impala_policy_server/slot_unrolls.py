"""SlotUnrolls: the unrolls under construction, one per slot, each with a row of its own.

Owned by the policy engine, on the event loop. Row t is the decision at observation t and its
result, as in UnrollBuilder; here every slot fills its unroll at its own pace, and complete unrolls
are copied out at once. Frames are stacked in these arrays and made unique when copied out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from impala_common.codec.frames import UniqueFrames, split_frames
from impala_common.codec.unrolls import Unrolls
from impala_common.spec.specs import UnrollSpec
from impala_policy_server.slot_arrays import Array, grow

_NO_VERSION = np.iinfo(np.int64).max
_OF_ROWS = ("actions", "behaviour_policy_logits", "rewards", "terminated", "truncated")


class CompleteUnrolls(NamedTuple):
    """Unrolls that are ready to be sent.

    Attributes:
      unrolls: side by side.
      policy_version: the oldest that chose one of their actions.
    """

    unrolls: Unrolls
    policy_version: int


class SlotUnrolls:
    """Unrolls of `spec` for any number of slots."""

    def __init__(self, spec: UnrollSpec, num_slots: int, max_unrolls: int) -> None:
        """Prepares for slots; no CompleteUnrolls has more than `max_unrolls`.

        Args:
          spec: specification of an unroll.
          num_slots: slots there is room for; `grow` makes more.
          max_unrolls: unrolls of one message at the most.
        """
        self._spec = spec
        self._max_unrolls = max_unrolls
        self._length = spec.unroll_length
        self._axes = {leaf.tensor.name: 0 if leaf.rows == "none" else 1 for leaf in spec.leaves}
        self._arrays: dict[str, Array] = {
            leaf.tensor.name: np.zeros(leaf.shape(self._length, num_slots), leaf.tensor.dtype)
            for leaf in spec.leaves
        }
        self._leaf_names = [leaf.name for leaf in spec.environment.observation_leaves]
        self._rows = np.zeros(num_slots, np.int64)
        self._is_open = np.zeros(num_slots, np.bool_)
        self._versions = np.full(num_slots, _NO_VERSION, np.int64)

    @property
    def room(self) -> int:
        """Slots there is room for."""
        return len(self._rows)

    def grow(self, num_slots: int) -> None:
        """Makes room for `num_slots` slots."""
        self._arrays = {
            name: grow(array, num_slots, self._axes[name]) for name, array in self._arrays.items()
        }
        self._rows = grow(self._rows, num_slots)
        self._is_open = grow(self._is_open, num_slots)
        self._versions = grow(self._versions, num_slots)

    def begin(
        self,
        places: Array,
        observations: Mapping[str, Array],
        is_first: Array,
        agent_state: Sequence[Array],
        previous_action: Array,
        previous_reward: Array,
    ) -> None:
        """Starts an unroll in each of these slots that has none.

        Args:
          places: int64 [n]: the slots; all other arguments have a row for each.
          observations: leaf name -> [n, ...]: observation 0.
          is_first: bool [n].
          agent_state: recurrent state before it, each [n, L, H].
          previous_action: [n, ...].
          previous_reward: float32 [n].
        """
        is_new = ~self._is_open[places]
        if not is_new.any():
            return
        slots = places[is_new]
        self._is_open[slots] = True
        self._rows[slots] = 0
        self._versions[slots] = _NO_VERSION
        arrays = self._arrays
        for name in self._leaf_names:
            arrays[name][0, slots] = observations[name][is_new]
        arrays["is_first"][0, slots] = is_first[is_new]
        arrays["previous_action"][slots] = previous_action[is_new]
        arrays["previous_reward"][slots] = previous_reward[is_new]
        for spec, state in zip(self._spec.agent_state, agent_state, strict=True):
            arrays[spec.name][slots] = state[is_new]

    def add_decision(self, places: Array, actions: Array, logits: Array, version: int) -> None:
        """Adds the decisions at the newest observations of these slots."""
        is_open = self._is_open[places]
        if not is_open.all():
            places, actions, logits = places[is_open], actions[is_open], logits[is_open]
        rows = self._rows[places]
        self._arrays["actions"][rows, places] = actions
        self._arrays["behaviour_policy_logits"][rows, places] = logits
        self._versions[places] = np.minimum(self._versions[places], version)

    def add_padding(self, places: Array) -> None:
        """Notes that nothing is decided at the newest observations of these slots."""
        places = places[self._is_open[places]]
        for name in ("actions", "behaviour_policy_logits"):
            self._arrays[name][self._rows[places], places] = 0

    def add_result(
        self,
        places: Array,
        observations: Mapping[str, Array],
        is_first: Array,
        rewards: Array,
        terminated: Array,
        truncated: Array,
        is_padding: Array,
    ) -> None:
        """Adds what the last decisions led to, and the next observation; see StepResult.

        Slots without an unroll are left alone.
        """
        is_open = self._is_open[places]
        if not is_open.all():
            places, is_first, rewards = places[is_open], is_first[is_open], rewards[is_open]
            terminated, truncated = terminated[is_open], truncated[is_open]
            is_padding = is_padding[is_open]
            observations = {name: array[is_open] for name, array in observations.items()}
        rows, arrays = self._rows[places], self._arrays
        arrays["rewards"][rows, places] = rewards
        arrays["terminated"][rows, places] = terminated
        arrays["truncated"][rows, places] = truncated
        arrays["is_padding"][rows, places] = is_padding
        if is_padding.any():
            for name in ("actions", "behaviour_policy_logits"):
                arrays[name][rows[is_padding], places[is_padding]] = 0
        rows = rows + 1
        self._rows[places] = rows
        arrays["is_first"][rows, places] = is_first
        for name in self._leaf_names:
            arrays[name][rows, places] = observations[name]

    def cut(self, places: Array) -> None:
        """Ends episodes whose last decision will have no result: the row before it is truncated.

        Its observation is the last that is known, and the learner bootstraps from it. The row of
        the decision itself has to become padding: `add_result` or `finish` comes next.
        """
        places = places[self._is_open[places]]
        places = places[self._rows[places] > 0]
        rows, arrays = self._rows[places] - 1, self._arrays
        has_ended = arrays["is_padding"][rows, places] | arrays["terminated"][rows, places]
        arrays["truncated"][rows, places] |= ~has_ended

    def take_complete(self, places: Array) -> list[CompleteUnrolls]:
        """Returns the unrolls of those slots that have T rows, and closes them.

        Unrolls without any step are dropped: where T is 1, the padding row of each end is one.
        """
        done = self._is_open[places] & (self._rows[places] == self._length)
        return self._copy_out_played(places[done]) if done.any() else []

    def finish(self, places: Array) -> list[CompleteUnrolls]:
        """Closes the unrolls of slots that are gone, and returns them with padding at their ends.

        Unrolls without any step are dropped.
        """
        self.cut(places)
        places = places[self._is_open[places]]
        for place in places:
            self._pad(int(place))
        return self._copy_out_played(places)

    def forget(self, places: Array) -> None:
        """Drops the unrolls of these slots; each starts a new one at its next observation."""
        self._is_open[places] = False

    def _pad(self, place: int) -> None:
        row, arrays = int(self._rows[place]), self._arrays
        for name in _OF_ROWS:
            arrays[name][row:, place] = 0
        arrays["is_padding"][row:, place] = True
        for name in (*self._leaf_names, "is_first"):
            arrays[name][row + 1 :, place] = arrays[name][row, place]

    def _copy_out_played(self, places: Array) -> list[CompleteUnrolls]:
        """Closes the unrolls of these slots; returns those with a step, which have a version."""
        self.forget(places)
        places = places[(~self._arrays["is_padding"][:, places]).any(axis=0)]
        step = self._max_unrolls
        return [self._copy(places[at : at + step]) for at in range(0, len(places), step)]

    def _copy(self, places: Array) -> CompleteUnrolls:
        leaves = {
            name: array[:, places] if self._axes[name] else array[places]
            for name, array in self._arrays.items()
        }
        frames: UniqueFrames | None = None
        if self._spec.uses_unique_frames:
            stacks = leaves.pop(self._spec.frame_leaf.name)
            frames = split_frames(np.ascontiguousarray(stacks))
        version = int(self._versions[places].min())
        return CompleteUnrolls(Unrolls(len(places), leaves, frames), version)


def join_unrolls(parts: Sequence[CompleteUnrolls], spec: UnrollSpec) -> CompleteUnrolls:
    """Returns complete unrolls of several times as those of one message."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0].unrolls
    axes = {leaf.tensor.name: 0 if leaf.rows == "none" else 1 for leaf in spec.leaves}
    leaves = {
        name: np.concatenate([part.unrolls.leaves[name] for part in parts], axis=axes[name])
        for name in first.leaves
    }
    frames: UniqueFrames | None = None
    if first.frames is not None:
        all_frames = [part.unrolls.frames for part in parts if part.unrolls.frames is not None]
        frames = UniqueFrames(
            np.concatenate([one.frames for one in all_frames]),
            np.concatenate([one.counts for one in all_frames]),
            np.concatenate([one.frame_index for one in all_frames], axis=1),
        )
    num_unrolls = sum(part.unrolls.num_unrolls for part in parts)
    version = min(part.policy_version for part in parts)
    return CompleteUnrolls(Unrolls(num_unrolls, leaves, frames), version)
