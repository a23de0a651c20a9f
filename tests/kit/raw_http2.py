"""RawClient: hand-made HTTP/2 frames that gRPC libraries never send.

One connection, blocking, with a deadline for every wait. Header compression is switched off, so
that answers can be read without decoding it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Iterator, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4

_FIRST_WINDOW_BYTES = 65_535

Pairs = Sequence[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def grpc_message(data: bytes, is_compressed: bool = False, declared: int | None = None) -> bytes:
    """Returns a message as gRPC frames it, or one that lies about its length."""
    size = len(data) if declared is None else declared
    return struct.pack(">BI", is_compressed, size) + data


def header_block(path: bytes, extra: Pairs = ()) -> bytes:
    pairs = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *extra,
    ]  # fmt: skip
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in pairs)


def _text(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes([size]) + value
    digits, size = [127], size - 127
    while size >= 128:
        digits.append(size % 128 + 128)
        size //= 128
    return bytes([*digits, size]) + value


class RawClient:
    """See the module.

    Attributes:
      socket: to send anything else.
    """

    def __init__(self, address: str, window: int | None = None, timeout_s: float = 10.0) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self._timeout_s = timeout_s
        self._received = b""
        settings = [(HEADER_TABLE_SIZE, 0)]
        settings += [] if window is None else [(INITIAL_WINDOW_SIZE, window)]
        packed = b"".join(struct.pack(">HI", *pair) for pair in settings)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, packed))

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def call(self, path: bytes, extra: Pairs = (), data: bytes = b"", stream: int = 1) -> None:
        """Opens a call and sends `data` (at most 4 MiB), without ending the stream."""
        if len(data) >= _FIRST_WINDOW_BYTES:
            self.wait_for_settings()  # they make the window larger
        sent = frame(HEADERS, END_HEADERS, stream, header_block(path, extra))
        for start in range(0, len(data), 16384):
            sent += frame(DATA, 0, stream, data[start : start + 16384])
        with contextlib.suppress(ConnectionError):  # refused while we speak: the answer is there
            self.socket.sendall(sent)

    def send_data(self, data: bytes, stream: int = 1) -> None:
        """Sends more data of a call, whatever the server's window is."""
        for start in range(0, len(data), 16384):
            self.socket.sendall(frame(DATA, 0, stream, data[start : start + 16384]))

    def frames(self, timeout_s: float | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Yields (kind, stream, payload), answering settings and pings, until the connection ends.

        Raises:
          TimeoutError: nothing more came in time.
        """
        deadline_s = time.monotonic() + (timeout_s or self._timeout_s)
        while True:
            while len(self._received) < 9 or len(self._received) < 9 + self._size():
                self.socket.settimeout(max(deadline_s - time.monotonic(), 0.001))
                try:
                    more = self.socket.recv(1 << 16)
                except ConnectionError:
                    return
                if not more:
                    return
                self._received += more
            end = 9 + self._size()
            kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
            payload, self._received = self._received[9:end], self._received[end:]
            if kind in (PING, SETTINGS) and not flags & ACK:
                with contextlib.suppress(ConnectionError):
                    answer = payload if kind == PING else b""
                    self.socket.sendall(frame(kind, ACK, 0, answer))
            yield kind, stream, payload

    def wait_for_settings(self) -> bool:
        """Returns whether the server took the connection."""
        try:
            return any(kind == SETTINGS for kind, _, _ in self.frames())
        except TimeoutError:
            return False

    def status(self, stream: int = 1, timeout_s: float | None = None) -> int | None:
        """Returns the gRPC status a call ends with; None where it ends without one."""
        for kind, of, payload in self.frames(timeout_s):
            if of == stream and kind == HEADERS:
                found = re.search(rb"grpc-status[\x01\x02](\d{1,2})", payload)
                if found is not None:
                    return int(found[1])
            if (of == stream and kind == RST) or kind == GOAWAY:
                return None
        return None

    def statuses(self, number: int, timeout_s: float) -> list[int]:
        """Returns the gRPC statuses of the next `number` calls that end with one."""
        found: list[int] = []
        for kind, _, payload in self.frames(timeout_s):
            status = re.search(rb"grpc-status[\x01\x02](\d{1,2})", payload)
            if kind == HEADERS and status is not None:
                found.append(int(status[1]))
                if len(found) == number:
                    break
        return found

    def _size(self) -> int:
        return int.from_bytes(self._received[:3], "big")
