"""EpisodeTracker: returns and lengths of finished episodes, before any reward clipping.

Fed with every StepResult by the actor loop and the evaluator. Rewards are raw,
padding rows count for nothing, and a lost life does not end an episode: an
episode is finished when a reset observation has arrived (`StepResult.has_reset`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import StepResult


class EpisodeRecord(NamedTuple):
    """One finished episode.

    Attributes:
      episode_return: sum of its raw rewards.
      num_steps: agent steps it took.
      environment_slot: slot it was played in.
    """

    episode_return: float
    num_steps: int
    environment_slot: int


class EpisodeTracker:
    """Sums up rewards and steps per environment slot; owned by the thread that steps."""

    def __init__(self, num_slots: int) -> None:
        self._returns = np.zeros(num_slots, np.float64)
        self._num_steps = np.zeros(num_slots, np.int64)

    def update(self, step: StepResult) -> list[EpisodeRecord]:
        """Adds one step of all slots.

        Returns:
          The episodes whose reset observation has arrived, by slot: with NEXT_STEP autoreset in
          the row after the one that said terminated or truncated, else in that row itself.
        """
        self._returns += step.rewards
        self._num_steps += 1
        if step.final_observations is None and not np.count_nonzero(step.is_padding):
            return []
        self._num_steps -= step.is_padding
        is_finished = step.has_reset
        slots = np.flatnonzero(is_finished).tolist()
        records = [self._make_record(slot) for slot in slots]
        self._returns[is_finished] = 0.0
        self._num_steps[is_finished] = 0
        return records

    @property
    def num_steps(self) -> NDArray[np.int64]:
        """int64 [N]: steps of the episodes in progress; a view, not to be written to."""
        return self._num_steps

    def unfinished(self) -> list[EpisodeRecord]:
        """Returns return and length so far of the episode in progress, for every slot."""
        return [self._make_record(slot) for slot in range(len(self._returns))]

    def _make_record(self, slot: int) -> EpisodeRecord:
        return EpisodeRecord(float(self._returns[slot]), int(self._num_steps[slot]), slot)
