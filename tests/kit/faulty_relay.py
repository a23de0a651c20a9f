"""FaultyRelay: an HTTP/2 relay that now and then answers a call itself, and wrongly.

Stands between a gRPC client and a server on loopback, as a proxy does. It reads the frames of the
client. Where a fault is armed it answers the next HEADERS or DATA frame with the fault's bytes in
place of passing it on.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from raw_http2 import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST, SETTINGS, frame

Fault = Callable[[int], bytes]
"""Returns the bytes to answer with, given the number of the stream."""


def _block(*pairs: tuple[bytes, bytes]) -> bytes:
    sizes = ((bytes([len(name)]) + name, bytes([len(value)]) + value) for name, value in pairs)
    return b"".join(b"\0" + name + value for name, value in sizes)


def rst_stream(code: int) -> Fault:
    return lambda stream: frame(RST, 0, stream, struct.pack(">I", code))


def goaway(code: int, text: bytes) -> Fault:
    return lambda stream: frame(GOAWAY, 0, 0, struct.pack(">II", stream, code) + text)


def malformed_settings(unused_stream: int) -> bytes:
    return frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff")  # a window above 2**31 - 1


def truncated_settings(unused_stream: int) -> bytes:
    return frame(SETTINGS, 0, 0, b"\0\4\xff")  # no whole number of settings


def no_http2(unused_stream: int) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


def http_status(status: bytes) -> Fault:
    block = _block((b":status", status), (b"content-type", b"text/html"))
    return lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


def grpc_status(code: int) -> Fault:
    block = _block(
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", str(code).encode()),
        (b"grpc-message", b"Stream removed"),
    )
    return lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


FAULTS: dict[str, Fault] = {
    **{f"RST_STREAM {code}": rst_stream(code) for code in range(14)},
    "GOAWAY ENHANCE_YOUR_CALM": goaway(11, b"too_many_pings"),
    "GOAWAY PROTOCOL_ERROR": goaway(1, b""),
    "SETTINGS out of range": malformed_settings,
    "SETTINGS cut off": truncated_settings,
    "HTTP/1.1": no_http2,
    **{
        f"HTTP status {status}": http_status(str(status).encode())
        for status in (400, 401, 403, 404, 429, 500, 502, 503, 504)
    },
    **{f"grpc-status {code}": grpc_status(code) for code in range(1, 17)},
}
"""What a broken or strict proxy may say, by name."""


class FaultyRelay:
    """See the module. Attribute `address`: HOST:PORT to connect to in place of the server."""

    def __init__(self, server_address: str) -> None:
        host, _, port = server_address.rpartition(":")
        self._server = (host, int(port))
        self._fault: Fault | None = None
        self._num_left = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.was_used = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def arm(self, fault: Fault, number: int = 1) -> None:
        """Answers the next `number` frames with `fault`; `was_used` is set after the last."""
        with self._lock:
            self.was_used.clear()
            self._fault, self._num_left = fault, number

    def close(self) -> None:
        """Ends all connections and threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            _shut(one)
        for thread in self._threads:
            thread.join(10.0)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="test-relay")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server, 10.0)
            except OSError:
                return
            server.settimeout(None)
            with self._lock:
                self._sockets += [client, server]
            # One lock per client: answers of both sides must not be mixed within a frame.
            writing = threading.Lock()
            self._start(self._pass_requests, client, server, writing)
            self._start(self._pass_answers, client, server, writing)

    def _pass_requests(
        self, client: socket.socket, server: socket.socket, writing: threading.Lock
    ) -> None:
        with contextlib.suppress(OSError), contextlib.closing(client.makefile("rb")) as requests:
            server.sendall(requests.read(len(PREFACE)))
            for kind, stream, whole in _frames(requests.read):
                fault = self._take(kind)
                if fault is None:
                    server.sendall(whole)
                    continue
                answer = fault(stream)
                with writing:
                    client.sendall(answer)
                if answer[3] != HEADERS and answer[3] != RST:
                    break  # what ends a connection is followed by its end
                server.sendall(frame(RST, 0, stream, struct.pack(">I", 8)))
        _shut(client)
        _shut(server)

    def _pass_answers(
        self, client: socket.socket, server: socket.socket, writing: threading.Lock
    ) -> None:
        with contextlib.suppress(OSError), contextlib.closing(server.makefile("rb")) as answers:
            for _, _, whole in _frames(answers.read):
                with writing:
                    client.sendall(whole)
        _shut(client)
        _shut(server)

    def _take(self, kind: int) -> Fault | None:
        with self._lock:
            if kind not in (HEADERS, DATA) or not self._num_left:
                return None
            self._num_left -= 1
            if not self._num_left:
                self.was_used.set()
            return self._fault


def _frames(read: Callable[[int], bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Yields (kind, stream, all bytes) of each frame."""
    while len(head := read(9)) == 9:
        kind, _, stream = struct.unpack(">BBI", head[3:])
        yield kind, stream, head + read(int.from_bytes(head[:3], "big"))


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
