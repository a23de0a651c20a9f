"""Recorder: an independent record of what was played in every slot, compared with unrolls.

Observations hold (slot, number), so every row of an unroll says which decision it is about. The
record knows nothing of how the policy server batches, builds or resends.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from impala_common.codec.frames import join_frames
from impala_common.codec.unrolls import Unrolls

Key = tuple[int, int]
"""(slot, number of the observation)."""


@dataclasses.dataclass
class Step:
    """An observation, and, once they are known, the action chosen at it and what that led to."""

    is_first: bool
    has_ended: bool = False
    action: int | None = None
    logits: Any = None
    result: tuple[float, bool, bool] | None = None


@dataclasses.dataclass
class Recorder:
    """Steps by key, in the order they were played, and what was found in unrolls."""

    steps: dict[Key, Step] = dataclasses.field(default_factory=dict)
    trained: list[Key] = dataclasses.field(default_factory=list)

    def observe(
        self, key: Key, reward: float, terminated: bool, truncated: bool, is_first: bool
    ) -> None:
        """Records an observation with what came with it."""
        slot, number = key
        before = self.steps.get((slot, number - 1))
        if not is_first:
            assert before is not None
            before.result = (reward, terminated, truncated)
        self.steps[key] = Step(is_first, terminated or truncated)

    def decide(self, key: Key, action: int, logits: Any = None) -> None:
        """Records the action of an observation; a second time it has to be the same."""
        step = self.steps[key]
        assert step.action in (None, action), f"{key}: another action at the second time"
        step.action, step.logits = action, logits

    def wanted(self) -> set[Key]:
        """Returns the decisions that have a result: each has to be trained once."""
        return {key for key, step in self.steps.items() if step.result and step.action is not None}

    def compare(self, unrolls: Unrolls) -> None:
        """Compares every row of the unrolls with the record; asserts that they agree."""
        leaves = unrolls.leaves
        observations = leaves.get("observation")
        if observations is None:
            assert unrolls.frames is not None
            stacks = join_frames(unrolls.frames)
            self._compare_stacks(stacks, leaves)
            observations = stacks[:, :, -1]
        for n in range(unrolls.num_unrolls):
            keys = [(int(row[0]), int(row[1])) for row in observations[:, n]]
            for t in range(len(leaves["rewards"])):
                self._compare_row(keys, t, {name: leaves[name][:, n] for name in _ROWS})
            self._compare_start(keys[0], {name: leaves[name][n] for name in _STARTS})

    def _compare_row(self, keys: list[Key], t: int, row: dict[str, Any]) -> None:
        step = self.steps[keys[t]]
        if row["is_padding"][t]:
            assert row["rewards"][t] == 0
            assert not row["terminated"][t]
            assert not row["truncated"][t]
            return
        assert row["is_first"][t] == step.is_first
        assert row["actions"][t] == step.action
        if step.logits is not None:
            np.testing.assert_array_equal(row["behaviour_policy_logits"][t], step.logits)
        assert step.result is not None, f"{keys[t]} was trained without a result"
        reward, terminated, truncated = step.result
        assert row["rewards"][t] == reward
        assert row["terminated"][t] == terminated
        assert keys[t + 1] == (keys[t][0], keys[t][1] + 1), "the final observation is not its own"
        if row["truncated"][t] and not truncated:  # given up by the server
            assert self.steps[keys[t + 1]].result is None
        else:
            assert row["truncated"][t] == truncated
            is_given_up = t + 1 < len(row["rewards"]) and row["is_padding"][t + 1]
            assert terminated or truncated or not is_given_up, "given up, but not truncated"
        self.trained.append(keys[t])

    def _compare_start(self, key: Key, start: dict[str, Any]) -> None:
        step = self.steps[key]
        before = self.steps.get((key[0], key[1] - 1))
        if step.is_first or before is None:
            assert start["previous_action"] == 0
            assert start["previous_reward"] == 0
        elif before.result is not None:
            assert start["previous_action"] == before.action
            assert start["previous_reward"] == before.result[0]

    def _compare_stacks(self, stacks: Any, leaves: dict[str, Any]) -> None:
        """Each stack has the newest frames of its episode, the first of them repeated."""
        for t, n in np.ndindex(stacks.shape[:2]):
            slot, number = (int(value) for value in stacks[t, n, -1])
            frames = [number]
            for _ in range(stacks.shape[2] - 1):
                oldest = frames[0]
                frames.insert(0, oldest if self.steps[slot, oldest].is_first else oldest - 1)
            np.testing.assert_array_equal(stacks[t, n, :, 1], frames)


_ROWS = (
    "is_padding", "rewards", "terminated", "truncated", "is_first", "actions",
    "behaviour_policy_logits",
)  # fmt: skip
_STARTS = ("previous_action", "previous_reward")
