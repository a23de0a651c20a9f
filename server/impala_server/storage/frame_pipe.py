"""FramePipe: one end of a pipe of byte messages whose sends and receives never block.

The processes of a learner server talk over such pipes. What the kernel does not take at once
waits in a bounded buffer of this end; `flush` hands on as much of it as the peer has room for.
A peer that is paused or stopped therefore never holds this side up. Knows nothing of what the
messages mean.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import select
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable

from impala_common.errors import CapacityError, QueueClosedError

MAX_FRAME_BYTES = 8 << 20
"""Size of one message at most."""

_LENGTH = struct.Struct("<I")
_READ_BYTES = 1 << 16
_FEW_UNREAD_BYTES = 64 << 10  # a third of what the kernel keeps for one direction of a pipe


class FramePipe:
    """One end. One thread at a time sends or flushes, one at a time receives.

    Attributes:
      name: of the peer, for error messages.
      num_unsent_bytes: what waits here for the peer to read.
      on_unsent: called after a send that left something waiting, so that an event loop can call
        `flush` once there is room; None where the owner calls `flush` from time to time.
    """

    def __init__(self, end: socket.socket, name: str, max_unsent_bytes: int) -> None:
        """Takes over one end of a pair of connected stream sockets.

        Args:
          end: this side's socket.
          name: of the peer, for error messages.
          max_unsent_bytes: how much may wait here for a peer that does not read.
        """
        end.setblocking(False)
        self.name = name
        self._end = end
        self._max_unsent_bytes = max_unsent_bytes
        self._unsent: deque[memoryview] = deque()
        self._incoming = bytearray()
        self.num_unsent_bytes = 0
        self.on_unsent: Callable[[], object] | None = None

    def fileno(self) -> int:
        """Returns the descriptor, -1 once closed; to be waited for by `select` and the like."""
        return self._end.fileno()

    def send(self, data: bytes) -> None:
        """Sends one message, or keeps what the peer has no room for until `flush`.

        Raises:
          QueueClosedError: the peer is gone.
          CapacityError: the message is too long, or too much waits already; nothing is sent.
        """
        num_bytes = _LENGTH.size + len(data)
        if len(data) > MAX_FRAME_BYTES:
            raise CapacityError(
                f"a message to {self.name} has {len(data)} bytes, at most {MAX_FRAME_BYTES} fit"
            )
        if self.num_unsent_bytes + num_bytes > self._max_unsent_bytes:
            raise CapacityError(
                f"{self.name} does not read: {self.num_unsent_bytes} bytes wait for it, and at "
                f"most {self._max_unsent_bytes} may"
            )
        self._unsent.append(memoryview(_LENGTH.pack(len(data)) + data))
        self.num_unsent_bytes += num_bytes
        if not self.flush() and self.on_unsent is not None:
            self.on_unsent()

    def flush(self) -> bool:
        """Hands on what waits as far as there is room; returns whether all of it is sent.

        Raises:
          QueueClosedError: the peer is gone.
        """
        try:
            while self._unsent:
                first = self._unsent[0]
                count = self._end.send(first)
                self.num_unsent_bytes -= count
                if count < len(first):
                    self._unsent[0] = first[count:]
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            return False
        except OSError as error:
            self._unsent.clear()
            self.num_unsent_bytes = 0
            raise QueueClosedError(f"{self.name} is gone") from error
        return True

    def drain(self, timeout_s: float) -> bool:
        """Waits until everything is sent; returns whether it was within `timeout_s`.

        Raises:
          QueueClosedError: the peer is gone.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self.flush():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0.0:
                return False
            _wait(self._end, select.POLLOUT, left_s)
        return True

    def has_room(self) -> bool:
        """Returns whether the peer keeps up: nothing waits here, and little in the kernel."""
        return not self._unsent and self._num_unread_bytes() < _FEW_UNREAD_BYTES

    def has_data(self) -> bool:
        """Returns whether something has come that was not received yet."""
        return bool(self._incoming) or _wait(self._end, select.POLLIN, 0.0)

    def receive(self, timeout_s: float) -> bytes | None:
        """Returns the next message, or None after `timeout_s`.

        Raises:
          QueueClosedError: the peer is gone, and all it sent was received.
        """
        deadline_s = time.monotonic() + timeout_s
        while (frame := self._take_frame()) is None:
            try:
                data = self._end.recv(_READ_BYTES)
            except BlockingIOError:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0.0:
                    return None
                _wait(self._end, select.POLLIN, left_s)
                continue
            except OSError as error:
                raise QueueClosedError(f"{self.name} is gone") from error
            if not data:
                raise QueueClosedError(f"{self.name} is gone")
            self._incoming += data
        return frame

    def close(self, patience_s: float = 0.0) -> None:
        """Closes this end, which the peer notices.

        Args:
          patience_s: how long to wait for the peer to read what is not sent yet; the rest is lost.
        """
        if self.fileno() >= 0 and self._unsent:
            with contextlib.suppress(QueueClosedError):
                self.drain(patience_s)
        self._unsent.clear()
        self.num_unsent_bytes = 0
        self._end.close()

    def _take_frame(self) -> bytes | None:
        incoming = self._incoming
        if len(incoming) < _LENGTH.size:
            return None
        (num_bytes,) = _LENGTH.unpack_from(incoming)
        if num_bytes > MAX_FRAME_BYTES:
            raise QueueClosedError(f"{self.name} sends no messages: {num_bytes} bytes announced")
        stop = _LENGTH.size + num_bytes
        if len(incoming) < stop:
            return None
        frame = bytes(incoming[_LENGTH.size : stop])
        del incoming[:stop]
        return frame

    def _num_unread_bytes(self) -> int:
        """Returns what the kernel holds for the peer; 0 where it does not tell."""
        count = array.array("i", [0])
        try:
            fcntl.ioctl(self._end.fileno(), termios.TIOCOUTQ, count)
        except (OSError, ValueError):
            return 0
        return count[0]


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Returns the two ends of a new pipe."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _wait(end: socket.socket, event: int, timeout_s: float) -> bool:
    """Waits for an event, the peer's end included; returns whether there is one."""
    if end.fileno() < 0:
        return True  # the next operation says that it is closed
    poll = select.poll()
    poll.register(end.fileno(), event)
    return bool(poll.poll(max(0.0, timeout_s) * 1e3))
