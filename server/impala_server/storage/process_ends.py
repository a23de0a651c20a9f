"""ProcessEnds: pipe ends and shared blocks of each server process.

Made by the supervisor from a `Wiring`, which says which children there are and what
connects them. A child process gets the descriptors by number on its command line;
in-process they are used as they are.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Mapping

from impala_server.storage.control_pipe import ControlPipe
from impala_server.storage.frame_pipe import make_pair
from impala_server.storage.handoff import HandoffPipe
from impala_server.storage.shared_block import SharedBlock

STORAGE = "storage"
WEIGHTS = "weights"


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessEnds:
    """What one child holds.

    Attributes:
      supervisor: messages with the supervisor.
      controls: messages with other children, by their names.
      handoffs: slot indexes with other children, by their names.
      blocks: shared memory by its name.
    """

    supervisor: ControlPipe
    controls: Mapping[str, ControlPipe]
    handoffs: Mapping[str, HandoffPipe]
    blocks: Mapping[str, SharedBlock]

    @property
    def pipes(self) -> tuple[ControlPipe | HandoffPipe, ...]:
        """All pipes, the supervisor's first."""
        return (self.supervisor, *self.controls.values(), *self.handoffs.values())

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors."""
        blocks = (block.fd for block in self.blocks.values())
        return (*(pipe.fileno() for pipe in self.pipes), *blocks)

    def to_argument(self) -> str:
        """Returns the descriptors as a command-line argument; they must be passed on too."""
        return json.dumps(
            {
                "supervisor": self.supervisor.fileno(),
                "controls": {name: pipe.fileno() for name, pipe in self.controls.items()},
                "handoffs": {name: pipe.fileno() for name, pipe in self.handoffs.items()},
                "blocks": {name: block.fd for name, block in self.blocks.items()},
            }
        )

    @classmethod
    def from_argument(cls, text: str) -> ProcessEnds:
        """Takes over the descriptors that `to_argument` named."""
        fds = json.loads(text)
        return cls(
            ControlPipe(socket.socket(fileno=fds["supervisor"]), "the supervisor"),
            {
                name: ControlPipe(socket.socket(fileno=fd), _title(name))
                for name, fd in fds["controls"].items()
            },
            {
                name: HandoffPipe(socket.socket(fileno=fd), _title(name))
                for name, fd in fds["handoffs"].items()
            },
            {name: SharedBlock(fd) for name, fd in fds["blocks"].items()},
        )

    def close_pipes(self, patience_s: float = 0.0) -> None:
        """Closes the pipes, which the other ends notice.

        Args:
          patience_s: how long to wait, for each pipe, until the peer has read what is unsent.
        """
        for pipe in self.pipes:
            pipe.close(patience_s)

    def close_blocks(self) -> None:
        """Closes the shared blocks."""
        for block in self.blocks.values():
            block.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Wiring:
    """Which children a supervisor has, and what connects them.

    Attributes:
      children: their names; each has a pipe to the supervisor.
      controls: pairs of children with a pipe for messages.
      handoffs: pairs of children with a pipe for slot indexes.
      blocks: shared memory by name, with the children that map it.
    """

    children: tuple[str, ...]
    controls: tuple[tuple[str, str], ...]
    handoffs: tuple[tuple[str, str], ...]
    blocks: Mapping[str, tuple[str, ...]]


ONE_LEARNER = Wiring(
    children=("learner", "front_end"),
    controls=(("learner", "front_end"),),
    handoffs=(("learner", "front_end"),),
    blocks={STORAGE: ("learner", "front_end"), WEIGHTS: ("learner", "front_end")},
)
"""A learner server with one learner and one front end."""


def make_ends(
    wiring: Wiring = ONE_LEARNER,
) -> tuple[dict[str, ProcessEnds], dict[str, ControlPipe]]:
    """Returns the ends of each child, and the supervisor's pipe to each, by the child's name."""
    controls: dict[str, dict[str, ControlPipe]] = {name: {} for name in wiring.children}
    handoffs: dict[str, dict[str, HandoffPipe]] = {name: {} for name in wiring.children}
    blocks: dict[str, dict[str, SharedBlock]] = {name: {} for name in wiring.children}
    for one, other in wiring.controls:
        ends = make_pair()
        controls[one][other] = ControlPipe(ends[0], _title(other))
        controls[other][one] = ControlPipe(ends[1], _title(one))
    for one, other in wiring.handoffs:
        ends = make_pair()
        handoffs[one][other] = HandoffPipe(ends[0], _title(other))
        handoffs[other][one] = HandoffPipe(ends[1], _title(one))
    for block_name, users in wiring.blocks.items():
        block = SharedBlock.create(f"impala-{block_name}")
        for user in users:
            blocks[user][block_name] = block
    children, supervisor = {}, {}
    for name in wiring.children:
        ours, theirs = make_pair()
        supervisor[name] = ControlPipe(ours, _title(name))
        children[name] = ProcessEnds(
            ControlPipe(theirs, "the supervisor"), controls[name], handoffs[name], blocks[name]
        )
    return children, supervisor


def _title(name: str) -> str:
    return f"the {name.replace('_', ' ')}"
