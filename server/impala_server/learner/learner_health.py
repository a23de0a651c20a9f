"""LearnerHealth: non-finite updates and damaged weights, and what happens then.

Owned by the learner, under its update lock; the controller reads `trouble`. `impala-server`
pauses, and an administrator decides what to do. `impala-train` and the class IMPALA end with
the error instead.
"""

from __future__ import annotations

import logging

from impala_common.config.sections import OptimizerConfig
from impala_common.errors import (
    CheckpointWriteError,
    IllegalTransitionError,
    ImpalaError,
    TrainingDivergedError,
)
from impala_server.learner.update_result import UpdateResult

_LOG = logging.getLogger(__name__)

_WHAT_TO_DO = (
    "The learner is PAUSED. Change what made it so (impala-admin set learning_rate VALUE, say), "
    "go back if need be (impala-admin rollback NAME), then impala-admin resume"
)


class LearnerHealth:
    """Counts failed updates in a row, and holds the trouble they lead to.

    Attributes:
      num_in_a_row: updates skipped since the last one that was made.
      trouble: reason why the learner waits for an administrator, and what to do; "" for none.
      damage: damage of the weights in words; "" for none.
    """

    def __init__(self) -> None:
        """Starts without failures."""
        self.num_in_a_row = 0
        self.trouble = ""
        self.damage = ""

    def recover(self) -> None:
        """Resets the count after an administrator has acted."""
        self.num_in_a_row = 0
        self.trouble = ""

    def note(self, result: UpdateResult, config: OptimizerConfig) -> ImpalaError | None:
        """Counts the result of an update; returns the error that ends training, or None."""
        if result.is_applied:
            self.num_in_a_row = 0
            return None
        self.num_in_a_row += 1
        if result.damage:
            self.damage = result.damage
            return TrainingDivergedError(f"{result.damage}; they were not published")
        _LOG.warning(
            "update skipped: loss %g, gradient norm %g (%d in a row)",
            result.loss,
            result.grad_norm,
            self.num_in_a_row,
        )
        limit = config.max_nonfinite_updates
        if self.num_in_a_row < limit:
            return None
        return TrainingDivergedError(
            f"{limit} updates in a row had a loss or gradient that was not finite; the "
            "last good weights are kept. Try a smaller --learning-rate, reward clipping, "
            "or a smaller --max-grad-norm"
        )

    def give_up(self, error: ImpalaError, config: OptimizerConfig) -> None:
        """Sets `trouble` and returns if the learner is to wait for an administrator.

        Raises:
          ImpalaError: `error`, if the learner is to end.
        """
        if config.when_diverged != "pause":
            raise error
        self.trouble = f"{error}. {_WHAT_TO_DO}"

    def require_sound_weights(self) -> None:
        """Raises CheckpointWriteError if the weights are damaged."""
        if self.damage:
            raise CheckpointWriteError(
                f"{self.damage}: they are not saved, and the last good checkpoint stays the newest"
            )

    def require_usable_weights(self) -> None:
        """Raises IllegalTransitionError if the weights are damaged: training cannot go on."""
        if self.damage:
            raise IllegalTransitionError(f"{self.damage}: first go back to a checkpoint (rollback)")
