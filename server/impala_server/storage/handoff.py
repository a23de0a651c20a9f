"""HandoffPipe: the pipe of slot indexes between front end and learner.

Full slots go one way and free ones back, as packed bytes; nothing is pickled.
No send blocks: a paused learner takes no slots, and its full slots wait in the
front end's outgoing buffer, which holds a message for every slot there can be.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from impala_common.config import MAX_STORAGE_SLOTS
from impala_server.storage.frame_pipe import FramePipe

MAX_EPISODES_PER_BATCH = 512
"""Episodes told beside a full slot at most; further ones are left out."""

_FREE = struct.Struct("<i?")  # slot, whether it was trained on
_FULL = struct.Struct("<ii3d")  # slot, episodes, seconds of environment, inference, blocked
_EPISODE = struct.Struct("<dq")  # return, steps
_MAX_FULL_BYTES = 4 + _FULL.size + MAX_EPISODES_PER_BATCH * _EPISODE.size
_MAX_UNSENT_BYTES = MAX_STORAGE_SLOTS * _MAX_FULL_BYTES


class FinishedEpisode(NamedTuple):
    """An episode of the real game, as an actor reported it."""

    episode_return: float
    num_steps: int


class ActorSeconds(NamedTuple):
    """Where the actors' time went, summed over the messages of one batch."""

    environment_s: float
    inference_s: float
    blocked_s: float


class FullSlot(NamedTuple):
    """A full slot, and the episodes and times that actors reported with its unrolls."""

    slot: int
    episodes: list[FinishedEpisode]
    actor_seconds: ActorSeconds


class FreedSlot(NamedTuple):
    """A slot the learner has released, and whether its batch was trained on or dropped."""

    slot: int
    is_trained: bool


class HandoffPipe:
    """One end of the hand-off pipe. Each direction has one sender and one receiver.

    Attributes:
      frames: the pipe below; `frames.flush` sends what the peer had no room for.
    """

    def __init__(
        self, end: socket.socket, name: str = "the other end of the hand-off pipe"
    ) -> None:
        """Wraps one end of a pair of sockets; `name` is the peer's, for error messages."""
        self.frames = FramePipe(end, name, _MAX_UNSENT_BYTES)

    def fileno(self) -> int:
        """Returns the descriptor."""
        return self.frames.fileno()

    def send_full(self, full: FullSlot) -> None:
        """Front end -> learner. Never blocks.

        Raises:
          QueueClosedError: the learner is gone.
        """
        episodes = full.episodes[:MAX_EPISODES_PER_BATCH]
        parts = [_FULL.pack(full.slot, len(episodes), *full.actor_seconds)]
        parts += [_EPISODE.pack(*episode) for episode in episodes]
        self.frames.send(b"".join(parts))

    def receive_full(self, timeout_s: float) -> FullSlot | None:
        """Learner: the next full slot, or None after `timeout_s`.

        Raises:
          QueueClosedError: the front end is gone.
        """
        data = self.frames.receive(timeout_s)
        if data is None:
            return None
        slot, num_episodes, *seconds = _FULL.unpack_from(data)
        episodes = [
            FinishedEpisode(*_EPISODE.unpack_from(data, _FULL.size + i * _EPISODE.size))
            for i in range(num_episodes)
        ]
        return FullSlot(slot, episodes, ActorSeconds(*seconds))

    def send_free(self, slot: int, is_trained: bool = True) -> None:
        """Learner -> front end. Never blocks.

        Raises:
          QueueClosedError: the front end is gone.
        """
        self.frames.send(_FREE.pack(slot, is_trained))

    def receive_free(self) -> FreedSlot | None:
        """Front end: the next freed slot, or None if there is none right now.

        Raises:
          QueueClosedError: the learner is gone.
        """
        data = self.frames.receive(0.0)
        return None if data is None else FreedSlot(*_FREE.unpack(data))

    def close(self, patience_s: float = 0.0) -> None:
        """Closes this end, after waiting up to `patience_s` for the peer to read what waits."""
        self.frames.close(patience_s)
