"""ProcessEnds: pipe ends and shared blocks of each server process.

Made by the supervisor. A child process gets the descriptors by number on its command line; a thread
uses the objects themselves.
"""

from __future__ import annotations

import dataclasses
import json
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from impala_server.storage.handoff import ControlPipe, HandoffPipe
from impala_server.storage.shared_block import SharedBlock


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessEnds:
    """Pipe ends and blocks of one of the two processes.

    Attributes:
      supervisor: to the supervisor.
      control: JSON between learner and front end.
      handoff: slot indexes between learner and front end.
      storage: rollout storage.
      weights: published weights.
    """

    supervisor: ControlPipe
    control: ControlPipe
    handoff: HandoffPipe
    storage: SharedBlock
    weights: SharedBlock

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors, in the order of the fields."""
        pipes = (self.supervisor, self.control, self.handoff)
        return (*(pipe.connection.fileno() for pipe in pipes), self.storage.fd, self.weights.fd)

    def to_argument(self) -> str:
        """Returns the descriptors as a command-line argument; they must be passed on too."""
        return json.dumps(self.fds)

    @classmethod
    def from_argument(cls, text: str) -> ProcessEnds:
        """Takes over the descriptors that `to_argument` named."""
        supervisor, control, handoff, storage, weights = json.loads(text)
        return cls(
            ControlPipe(_connection(supervisor)),
            ControlPipe(_connection(control)),
            HandoffPipe(_connection(handoff)),
            SharedBlock(storage),
            SharedBlock(weights),
        )

    def close_pipes(self) -> None:
        """Closes the pipes, which tells the other sides."""
        for pipe in (self.supervisor, self.control, self.handoff):
            if not pipe.connection.closed:
                pipe.close()


def make_ends() -> tuple[ProcessEnds, ProcessEnds, ControlPipe, ControlPipe]:
    """Returns the learner's ends, the front end's, and the supervisor's pipes to the two."""
    storage, weights = SharedBlock.create("impala-storage"), SharedBlock.create("impala-weights")
    to_learner, learner_supervisor = Pipe(duplex=True)
    to_front_end, front_end_supervisor = Pipe(duplex=True)
    learner_control, front_end_control = Pipe(duplex=True)
    learner_handoff, front_end_handoff = Pipe(duplex=True)
    learner = ProcessEnds(
        ControlPipe(learner_supervisor),
        ControlPipe(learner_control),
        HandoffPipe(learner_handoff),
        storage,
        weights,
    )
    front_end = ProcessEnds(
        ControlPipe(front_end_supervisor),
        ControlPipe(front_end_control),
        HandoffPipe(front_end_handoff),
        storage,
        weights,
    )
    return learner, front_end, ControlPipe(to_learner), ControlPipe(to_front_end)


def _connection(fd: int) -> Connection[Any, Any]:
    return Connection(fd)
