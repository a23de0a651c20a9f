"""Changes: what an administrator changes between two updates, for whoever must follow.

Called under the learner's update lock. A learner alone has nobody to tell; `ChangeList` of
`impala_server.ranks` keeps them for the other learner ranks.
"""

from __future__ import annotations

from impala_common.run.checkpoints import Checkpoint


class Changes:
    """Nobody follows: notes nothing."""

    def note_parameter(self, name: str, text: str) -> None:
        """A parameter was set."""

    def note_resume(self) -> None:
        """Updates go on after a pause."""

    def note_rollback(self, checkpoint: Checkpoint) -> None:
        """The learner went back to a checkpoint."""
