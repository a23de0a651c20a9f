"""Relay: stands between a client and the kit's server, and breaks what a network breaks.

It passes HTTP/2 frames on, without TLS. It can reset a stream, say GOAWAY, cut all connections and
refuse new ones; and it counts the pings of clients. Threads of its own, two for each connection.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

_PREFACE_BYTES = 24
_HEADERS, _RST, _PING, _GOAWAY = 1, 3, 6, 7
_ACK = 1
_CANCEL = 8


@dataclasses.dataclass
class _Connection:
    """A client's connection and the one to the server that belongs to it."""

    client: socket.socket
    server: socket.socket
    writing: threading.Lock  # towards the client: frames are not mixed
    sending: threading.Lock  # towards the server
    newest_stream: int = 0
    opened_s: float = 0.0  # when that stream came


class Relay:
    """Listens on a free port of 127.0.0.1.

    Attributes:
      address: HOST:PORT for clients.
    """

    def __init__(self, server_address: str) -> None:
        """Passes on what comes to `server_address`, HOST:PORT, from now until `close`."""
        host, _, port = server_address.rpartition(":")
        self._server = (host, int(port))
        self._is_down = False
        self._is_closed = False
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._pings_s: list[float] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def reset_stream(self, code: int) -> None:
        """Ends the newest stream with RST_STREAM, which carries no status.

        Args:
          code: of HTTP/2.
        """
        connection = self._newest()
        stream = connection.newest_stream
        with contextlib.suppress(OSError), connection.writing:
            connection.client.sendall(_frame(_RST, stream, struct.pack(">I", code)))
        with contextlib.suppress(OSError), connection.sending:
            connection.server.sendall(_frame(_RST, stream, struct.pack(">I", _CANCEL)))

    def go_away(self) -> None:
        """Says that the newest connection takes no further streams; those there are go on."""
        connection = self._newest()
        payload = struct.pack(">II", connection.newest_stream, 0)
        with contextlib.suppress(OSError), connection.writing:
            connection.client.sendall(_frame(_GOAWAY, 0, payload))

    def go_down(self) -> None:
        """Cuts all connections, and each new one at once, until `come_up`."""
        with self._lock:
            self._is_down = True
            connections, self._connections = self._connections, []
        for connection in connections:
            _shut(connection.client)
            _shut(connection.server)

    def come_up(self) -> None:
        """Passes on again, at the same address."""
        with self._lock:
            self._is_down = False

    def count_pings(self, since_s: float) -> int:
        """Returns how many pings clients have sent since a time of `time.monotonic`."""
        with self._lock:
            return sum(ping_s >= since_s for ping_s in self._pings_s)

    def close(self) -> None:
        """Ends all connections and threads."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.go_down()
        for thread in self._threads:
            thread.join(10.0)

    def _newest(self) -> _Connection:
        """Returns the connection whose stream was opened last."""
        with self._lock:
            return max(self._connections, key=lambda one: one.opened_s)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="relay", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server, 10.0)
            except OSError:
                return
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(client, server, threading.Lock(), threading.Lock())
            with self._lock:
                is_refused = self._is_down or self._is_closed
                if not is_refused:
                    self._connections.append(connection)
            if is_refused:
                _shut(client)
                _shut(server)
                continue
            self._start(self._pass_requests, connection)
            self._start(self._pass_answers, connection)

    def _pass_requests(self, connection: _Connection) -> None:
        client, server = connection.client, connection.server
        with contextlib.suppress(OSError), contextlib.closing(client.makefile("rb")) as requests:
            server.sendall(requests.read(_PREFACE_BYTES))
            for kind, flags, stream, whole in _frames(requests.read):
                if kind == _HEADERS:
                    connection.newest_stream, connection.opened_s = stream, time.monotonic()
                if kind == _PING and not flags & _ACK:
                    with self._lock:
                        self._pings_s.append(time.monotonic())
                with connection.sending:
                    server.sendall(whole)
        _shut(client)
        _shut(server)

    def _pass_answers(self, connection: _Connection) -> None:
        client, server = connection.client, connection.server
        with contextlib.suppress(OSError), contextlib.closing(server.makefile("rb")) as answers:
            for _, _, _, whole in _frames(answers.read):
                with connection.writing:
                    client.sendall(whole)
        _shut(client)


def _frame(kind: int, stream: int, payload: bytes) -> bytes:
    head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, 0, stream)
    return head + payload


def _frames(read: Callable[[int], bytes]) -> Iterator[tuple[int, int, int, bytes]]:
    """Yields (kind, flags, stream, all bytes) of each frame."""
    while len(head := read(9)) == 9:
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        yield kind, flags, stream, head + read(int.from_bytes(head[:3], "big"))


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
