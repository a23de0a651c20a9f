"""Pipes between front end and learner: slot indexes and control messages.

Two duplex pipes, made by the supervisor. `hand-off` carries full slots one way
and free ones back, as packed bytes; `control` carries small JSON objects. A closed pipe tells each
side that the other has died. Nothing here is
pickled.
"""

from __future__ import annotations

import json
import select
import struct
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from impala_common.errors import QueueClosedError

_FREE = struct.Struct("<i?")  # slot, whether it was trained on
_FULL = struct.Struct("<ii3d")  # slot, episodes, seconds of environment, inference, blocked
_EPISODE = struct.Struct("<dq")  # return, steps


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
    """One end of the hand-off pipe. Each direction has one sender and one receiver."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        """Wraps one end of a duplex pipe."""
        self.connection = connection

    def send_full(self, full: FullSlot) -> None:
        """Front end -> learner.

        Raises:
          QueueClosedError: the learner is gone.
        """
        parts = [_FULL.pack(full.slot, len(full.episodes), *full.actor_seconds)]
        parts += [_EPISODE.pack(*episode) for episode in full.episodes]
        try:
            self.connection.send_bytes(b"".join(parts))
        except OSError as error:
            raise QueueClosedError("the learner is gone") from error

    def receive_full(self, timeout_s: float) -> FullSlot | None:
        """Learner: the next full slot, or None after `timeout_s`.

        Raises:
          QueueClosedError: the front end is gone.
        """
        data = self._receive(timeout_s)
        if data is None:
            return None
        slot, num_episodes, *seconds = _FULL.unpack_from(data)
        episodes = [
            FinishedEpisode(*_EPISODE.unpack_from(data, _FULL.size + i * _EPISODE.size))
            for i in range(num_episodes)
        ]
        return FullSlot(slot, episodes, ActorSeconds(*seconds))

    def send_free(self, slot: int, is_trained: bool = True) -> None:
        """Learner -> front end.

        Raises:
          QueueClosedError: the front end is gone.
        """
        try:
            self.connection.send_bytes(_FREE.pack(slot, is_trained))
        except OSError as error:
            raise QueueClosedError("the front end is gone") from error

    def receive_free(self) -> FreedSlot | None:
        """Front end: the next freed slot, or None if there is none right now."""
        data = self._receive(0.0)
        return None if data is None else FreedSlot(*_FREE.unpack(data))

    def _receive(self, timeout_s: float) -> bytes | None:
        try:
            if not self.connection.poll(timeout_s):
                return None
            return self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise QueueClosedError("the other end of the hand-off pipe is gone") from error

    def close(self) -> None:
        """Closes this end, which tells the other side."""
        self.connection.close()


class ControlPipe:
    """One end of a pipe of JSON objects, each with a "kind"."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        """Wraps one end of a duplex pipe."""
        self.connection = connection

    def send(self, kind: str, **fields: Any) -> None:  # Any: JSON
        """Sends one message; a peer that is gone is not an error here, reading will tell."""
        try:
            self.connection.send_bytes(json.dumps({"kind": kind, **fields}).encode())
        except OSError:
            return

    def send_if_room(self, kind: str, **fields: Any) -> None:  # Any: JSON
        """Sends news that later news replaces, unless the peer has stopped reading.

        A peer that hangs must not make this side hang too.
        """
        try:
            poll = select.poll()
            poll.register(self.connection.fileno(), select.POLLOUT)
            has_room = bool(poll.poll(0))
        except OSError:
            return
        if has_room:
            self.send(kind, **fields)

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Returns the next message, or None after `timeout_s`.

        Raises:
          QueueClosedError: the other end is gone.
        """
        try:
            if not self.connection.poll(timeout_s):
                return None
            message: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise QueueClosedError("the other end of the control pipe is gone") from error
        return message

    def close(self) -> None:
        """Closes this end, which tells the other side."""
        self.connection.close()
