"""What is wrong with a learner that cannot go on by itself, and what then happens.

Owned by the learner, under its update lock; the controller reads `trouble`. A
learner that an administrator looks after waits, PAUSED, for what he does about
it. A command that somebody waits for ends instead, with the error.
"""

from __future__ import annotations

from impala_common.config.sections import OptimizerConfig
from impala_common.errors import CheckpointWriteError, IllegalTransitionError, ImpalaError

_WHAT_TO_DO = (
    "The learner is PAUSED. Change what made it so (impala-admin set learning_rate VALUE, say), "
    "go back if need be (impala-admin rollback NAME), then impala-admin resume"
)


class LearnerHealth:
    """Mishaps in a row, and the trouble they add up to.

    Attributes:
      num_in_a_row: updates skipped since the last that was made.
      trouble: why the learner waits for an administrator, and what to do; "" if it does not.
      damage: what is wrong with the weights; "" while they are good.
    """

    def __init__(self) -> None:
        """Begins well."""
        self.num_in_a_row = 0
        self.trouble = ""
        self.damage = ""

    def recover(self) -> None:
        """Forgets mishaps: someone has done something about them."""
        self.num_in_a_row = 0
        self.trouble = ""

    def give_up(self, error: ImpalaError, config: OptimizerConfig) -> None:
        """Returns where the learner is to wait for an administrator; `trouble` says so then.

        Raises:
          ImpalaError: `error`, where it is to end.
        """
        if config.when_diverged != "pause":
            raise error
        self.trouble = f"{error}. {_WHAT_TO_DO}"

    def require_sound_weights(self) -> None:
        """Raises CheckpointWriteError where a checkpoint would hold damaged weights."""
        if self.damage:
            raise CheckpointWriteError(
                f"{self.damage}: they are not saved, and the last good checkpoint stays the newest"
            )

    def require_usable_weights(self) -> None:
        """Raises IllegalTransitionError where there is nothing to go on with."""
        if self.damage:
            raise IllegalTransitionError(f"{self.damage}: first go back to a checkpoint (rollback)")
