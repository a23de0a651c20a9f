"""ActorActivity: counts, rate and lag of one actor's session.

Owned by the front end's event loop. For display only: no decision depends on it.
"""

from __future__ import annotations

import time
from collections import deque

_MARKS = 16
_MARK_INTERVAL_S = 0.5


class ActorActivity:
    """Counts of one session.

    Attributes:
      accepted: unrolls taken.
      duplicates: unrolls that were accepted before.
      rejected: unrolls refused: stale, invalid, no room.
      policy_lag: updates the last message lagged behind.
    """

    def __init__(self) -> None:
        """Starts with counts of 0."""
        self.accepted = self.duplicates = self.rejected = self.policy_lag = 0
        self._num_steps = 0
        self._heard_s = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._heard_s, 0)], maxlen=_MARKS)

    @property
    def silent_s(self) -> float:
        """Seconds since the last message, or since it registered."""
        return time.monotonic() - self._heard_s

    @property
    def steps_per_s(self) -> float:
        """Agent steps accepted per second over the last 8 s or more, padding rows included."""
        then_s, num_steps = self._marks[0]
        return (self._num_steps - num_steps) / max(time.monotonic() - then_s, 1e-3)

    def note(self, outcome: str, num_unrolls: int, num_steps: int, policy_lag: int) -> None:
        """Counts one message, by the name of its verdict."""
        self._heard_s = time.monotonic()
        self.policy_lag = policy_lag
        if outcome == "accepted":
            self.accepted += num_unrolls
            self._num_steps += num_steps
        elif outcome == "duplicate":
            self.duplicates += num_unrolls
        else:
            self.rejected += num_unrolls
        if self._heard_s - self._marks[-1][0] >= _MARK_INTERVAL_S:
            self._marks.append((self._heard_s, self._num_steps))
