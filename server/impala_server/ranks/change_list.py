"""ChangeList: changes on rank 0 that the other ranks make before the next update.

Filled on the controller's thread and emptied on the rank loop's, both under the update lock. They
travel as JSON lines, a rollback with the checkpoint's bytes after its line.
"""

from __future__ import annotations

import json

from impala_common.run.checkpoints import Checkpoint
from impala_server.learner.changes import Changes
from impala_server.learner.learner import Learner
from impala_server.ranks.checkpoint_bytes import pack_checkpoint, unpack_checkpoint


class ChangeList(Changes):
    """Changes since the last `take`."""

    def __init__(self) -> None:
        """Starts empty."""
        self._parts: list[bytes] = []

    def __bool__(self) -> bool:
        """Returns whether there are any."""
        return bool(self._parts)

    def note_parameter(self, name: str, text: str) -> None:
        """Notes that a parameter was set."""
        self._note({"kind": "set", "name": name, "text": text})

    def note_resume(self) -> None:
        """Notes that updates go on."""
        self._note({"kind": "resume"})

    def note_rollback(self, checkpoint: Checkpoint) -> None:
        """Notes a rollback."""
        data = pack_checkpoint(
            checkpoint.name, checkpoint.step, checkpoint.tensors, checkpoint.state
        )
        self._note({"kind": "rollback", "num_bytes": len(data)})
        self._parts.append(data)

    def note_drain(self) -> None:
        """Notes that no more unrolls are taken."""
        self._note({"kind": "drain"})

    def take(self) -> bytes:
        """Returns all changes as bytes, and forgets them."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def _note(self, change: dict[str, object]) -> None:
        self._parts.append(json.dumps(change).encode() + b"\n")


def make_changes(learner: Learner, data: bytes) -> bool:
    """Makes the changes that `take` returned on rank 0; returns whether to drain.

    To be called under the update lock. Rank 0 has validated them.
    """
    drains = False
    while data:
        line, _, data = data.partition(b"\n")
        change = json.loads(line)
        if change["kind"] == "set":
            learner.state.set_parameter(change["name"], change["text"])
        elif change["kind"] == "resume":
            learner.health.recover()
        elif change["kind"] == "rollback":
            size = change["num_bytes"]
            learner.go_back(unpack_checkpoint(data[:size]))
            data = data[size:]
        else:
            drains = True
    return drains
