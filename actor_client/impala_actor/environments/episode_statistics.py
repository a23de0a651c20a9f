"""EpisodeTracker: returns and lengths of finished episodes, before any reward clipping.

Fed with every StepResult by the actor loop and the evaluator. Rewards are raw, padding rows are not
counted, and a lost life does not end an episode: an episode is finished when a reset observation
has arrived, one row after its end.
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
          The episodes whose reset row this was, by slot. With NEXT_STEP autoreset that is the
          row after the one that said terminated or truncated.
        """
        self._returns += step.rewards
        self._num_steps += 1
        if not np.count_nonzero(step.is_padding):
            return []
        self._num_steps -= step.is_padding
        # In a pause row all slots are padding, but only those whose episode ended open one.
        is_finished = step.is_padding & step.is_first
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
