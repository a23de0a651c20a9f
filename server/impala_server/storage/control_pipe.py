"""ControlPipe: the pipe of JSON messages between two processes of a learner server.

Carries the messages of `impala_server.messages`. No send blocks. The end of a
pipe is how a process learns that the other one has ended.
"""

from __future__ import annotations

import contextlib
import socket

from impala_common.errors import QueueClosedError
from impala_server.messages import Message, decode, encode
from impala_server.storage.frame_pipe import FramePipe

_MAX_UNSENT_BYTES = 16 << 20


class ControlPipe:
    """One end of a control pipe.

    Attributes:
      frames: the pipe below; `frames.flush` sends what the peer had no room for.
    """

    def __init__(self, end: socket.socket, name: str = "the other end of the control pipe") -> None:
        """Wraps one end of a pair of sockets; `name` is the peer's, for error messages."""
        self.frames = FramePipe(end, name, _MAX_UNSENT_BYTES)

    def fileno(self) -> int:
        """Returns the descriptor."""
        return self.frames.fileno()

    def send(self, message: Message) -> None:
        """Sends one message; that the peer is gone is told by `receive`, not here.

        Raises:
          CapacityError: the message is too long, or the peer has not read for too long.
        """
        with contextlib.suppress(QueueClosedError):
            self.frames.send(encode(message))

    def send_if_room(self, message: Message) -> None:
        """Sends news that later news replaces, unless the peer has stopped reading."""
        if self.frames.has_room():
            self.send(message)

    def flush(self) -> bool:
        """Sends what waits as far as there is room; returns whether nothing waits any more."""
        try:
            return self.frames.flush()
        except QueueClosedError:
            return True

    def receive(self, timeout_s: float) -> Message | None:
        """Returns the next message, or None after `timeout_s`.

        Raises:
          QueueClosedError: the peer is gone.
          MessageError: the message is of an unknown kind, or its fields are not as declared.
        """
        data = self.frames.receive(timeout_s)
        return None if data is None else decode(data)

    def receive_all(self) -> list[Message]:
        """Returns all messages that have come.

        Raises:
          QueueClosedError: the peer is gone, and all its messages were returned before.
          MessageError: see `receive`.
        """
        messages = []
        try:
            while (message := self.receive(0.0)) is not None:
                messages.append(message)
        except QueueClosedError:
            if not messages:  # else the next call says so
                raise
        return messages

    def close(self, patience_s: float = 0.0) -> None:
        """Closes this end, after waiting up to `patience_s` for the peer to read what waits."""
        self.frames.close(patience_s)
