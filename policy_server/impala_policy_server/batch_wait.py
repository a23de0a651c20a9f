"""BatchWait: how long a batch waits for the observations of further slots.

Waiting makes batches larger and answers later. A batch that waits as long as a decision takes makes
an answer at most twice as late as its decision alone, and decisions that take longer, as those of
large networks do, bring more observations together.
"""

from __future__ import annotations

_SMOOTHING = 0.1
"""Weight of the newest decision in the mean."""


class BatchWait:
    """The wait of one policy server. Owned by the dispatcher.

    Attributes:
      seconds: the wait of the next batch.
    """

    def __init__(self, max_s: float) -> None:
        """Waits `max_s` until a decision was made, never longer."""
        self._max_s = max_s
        self._decision_s: float | None = None
        self.seconds = max_s

    def note_decision(self, duration_s: float) -> None:
        """Takes the duration of a decision into the mean."""
        mean_s = duration_s if self._decision_s is None else self._decision_s
        self._decision_s = mean_s + _SMOOTHING * (duration_s - mean_s)
        self.seconds = min(self._max_s, self._decision_s)
