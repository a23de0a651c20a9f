"""ScrapeServer: HTTP for `/metrics`, in which no client can make others or the end wait.

Owned by the Prometheus endpoint of the front end. One thread accepts. Each request has a thread
of its own and a deadline for all of it, after which its connection is cut. At most MAX_REQUESTS
are open; one more cuts the oldest, since an honest scrape takes milliseconds. `close` cuts all.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import socketserver
import threading
import time
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from impala_common.errors import AddressInUseError, ConfigError
from impala_common.rpc.addresses import join_address

MAX_REQUESTS = 8
"""Requests answered at a time: a few Prometheus servers, and a person who looks."""
REQUEST_DEADLINE_S = 5.0
"""Time for a whole request, from the connection to the last byte of the answer."""

_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_POLL_S = 0.1
_JOIN_S = 2.0


class _QuietHandler(WSGIRequestHandler):
    """Writes no line per request to stderr."""

    def log_message(self, format: str, *args: object) -> None:
        """Does nothing."""


class ScrapeServer(socketserver.ThreadingMixIn, WSGIServer):
    """See the module."""

    daemon_threads = True  # a request in progress does not keep the process
    block_on_close = False

    def __init__(
        self, host: str, port: int, app: Any, deadline_s: float = REQUEST_DEADLINE_S
    ) -> None:
        """Listens and serves at once.

        Args:
          host: address to listen on.
          port: 0 for any free one.
          app: a WSGI application. Any: typeshed has no public name for it.
          deadline_s: time for a whole request.

        Raises:
          OSError: the port is taken, or `host` is no address of this machine.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self._deadline_s = deadline_s
        self._open: dict[socket.socket, float] = {}  # connections by their deadline, oldest first
        self._lock = threading.Lock()
        super().__init__((host, port), _QuietHandler)
        self.set_app(app)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_S,), name="impala-prometheus"
        )
        self._thread.start()

    def close(self) -> None:
        """Stops listening, cuts all connections and ends the thread that accepts."""
        self.shutdown()
        self.server_close()
        with self._lock:
            connections, self._open = list(self._open), {}
        for connection in connections:
            _cut(connection)
        self._thread.join(_JOIN_S)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Notes a new connection; cuts the oldest where there are too many."""
        with self._lock:
            oldest = next(iter(self._open)) if len(self._open) >= MAX_REQUESTS else None
            self._open.pop(oldest, None)  # type: ignore[arg-type]
            self._open[request] = time.monotonic() + self._deadline_s
        if oldest is not None:
            _cut(oldest)
        return True

    def service_actions(self) -> None:
        """Cuts connections whose deadline is over. Called several times a second."""
        now_s = time.monotonic()
        with self._lock:
            late = [one for one, deadline_s in self._open.items() if deadline_s <= now_s]
            for connection in late:
                del self._open[connection]
        for connection in late:
            _cut(connection)

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection whose request is over."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, unused_request: Any, unused_client_address: Any) -> None:
        """Does nothing: the client left, or its connection was cut."""


def serve_metrics(host: str, port: int, app: Any) -> ScrapeServer:
    """Returns a server of `app` at the settings prometheus_host and prometheus_port.

    Args:
      host: name, or address without brackets.
      port: 0 or negative for any free one.
      app: a WSGI application. Any: typeshed has no public name for it.

    Raises:
      ConfigError: `host` is no address of this machine.
      AddressInUseError: the port is taken.
    """
    try:
        return ScrapeServer(host, max(port, 0), app)
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, socket.gaierror) or error.errno in _NOT_OURS:
            raise ConfigError(
                "--prometheus-host", host, "a name or an address of this machine", why
            ) from error
        raise AddressInUseError(
            f"cannot serve Prometheus on {join_address(host, port)}: {why}; pass another "
            "--prometheus-port (0: none)"
        ) from error


def _cut(connection: socket.socket) -> None:
    """Wakes the thread that reads or writes the connection; that thread closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
