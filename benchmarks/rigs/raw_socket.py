"""The bound of the wire: the same bytes through plain TCP sockets, from Python.

`sendall` on one side, `recv_into` straight into the place where the bytes are to lie on the other,
one thread per connection, no framing, no checks, no acknowledgement. Both sides are processes
of their own, as the learner's front end and the actors are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

from benchmarks.rigs.worker_process import WorkerProcess, serve
from benchmarks.suite.section import Json

_MODULE = "benchmarks.rigs.raw_socket"
_LISTEN_S = 30.0


class RawSockets:
    """Streams between a listening process and connecting ones; they begin paused."""

    def __init__(
        self, num_streams: int, num_bytes: int, listener_sends: bool, num_processes: int = 2
    ) -> None:
        """Connects all of them.

        Args:
          num_streams: connections.
          num_bytes: of one message.
          listener_sends: whether the one process sends (weights) or receives (unrolls).
          num_processes: processes that share the connecting ends.
        """
        self.num_bytes = num_bytes
        self._num_streams = num_streams
        self._listener_sends = listener_sends
        num_processes = min(num_processes, num_streams)
        common = {"num_bytes": num_bytes}
        with contextlib.ExitStack() as stack:
            listener = WorkerProcess(
                _MODULE, {**common, "port": 0, "num_streams": num_streams, "sends": listener_sends}
            )
            self.listener = stack.enter_context(listener)
            self.clients = [
                stack.enter_context(
                    WorkerProcess(
                        _MODULE,
                        {
                            **common,
                            "port": listener.ready["port"],
                            "num_streams": len(range(k, num_streams, num_processes)),
                            "sends": not listener_sends,
                        },
                    )
                )
                for k in range(num_processes)
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> RawSockets:
        """They are connected already."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Closes all of them."""
        self._stack.close()

    @contextlib.contextmanager
    def at_work(self, warm_up_s: float) -> Iterator[None]:
        """A context in which messages are sent without a pause, after a warm-up."""
        self._allow("run")
        try:
            time.sleep(warm_up_s)
            yield
        finally:
            self._allow("pause")

    def num_messages(self) -> int:
        """Returns how many messages have arrived."""
        return sum(int(worker.ask("count")["num_messages"]) for worker in self._receivers)

    def send_once(self) -> float:
        """Sends one message on each stream; returns the seconds until the last has arrived."""
        start_s = time.monotonic()
        for worker in self._receivers:
            worker.send("await_one_each")
        self._allow("once")
        for worker in self._receivers:
            worker.receive()
        return time.monotonic() - start_s

    @property
    def _receivers(self) -> list[WorkerProcess]:
        return self.clients if self._listener_sends else [self.listener]

    def _allow(self, kind: str) -> None:
        senders = [self.listener] if self._listener_sends else self.clients
        for worker in senders:
            worker.send(kind)
        for worker in senders:
            worker.receive()


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What one process is told; port 0 listens."""

    num_bytes: int
    port: int
    num_streams: int
    sends: bool


class _Streams:
    """This process's ends."""

    def __init__(self, settings: _Settings, listener: socket.socket | None) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._allowed = [0.0] * settings.num_streams  # messages it may have sent so far
        self._counts = [0] * settings.num_streams
        self._awaited = 0
        self._is_closing = False
        self._sockets: list[socket.socket] = []
        self._listener = listener
        self._threads = [threading.Thread(target=self._work)]
        self._threads[0].start()

    def answer(self, request: Json) -> Json:
        """Does what the benchmark asks for."""
        kind, num_streams = request["kind"], self._settings.num_streams
        with self._changed:
            if kind == "run":
                self._allowed = [math.inf] * num_streams
            elif kind == "pause":
                self._allowed = [0.0] * num_streams
            elif kind == "once":
                self._allowed = [count + 1.0 for count in self._counts]
            elif kind == "await_one_each":
                wanted = self._awaited + num_streams
                self._changed.wait_for(lambda: sum(self._counts) >= wanted, _LISTEN_S)
                self._awaited = wanted
            self._changed.notify_all()
        return {"num_messages": sum(self._counts)}

    def close(self) -> None:
        """Ends all threads."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        """Connects all streams, then gives each a thread."""
        for index in range(self._settings.num_streams):
            if self._listener is not None:
                connection, _ = self._listener.accept()
            else:
                address = ("127.0.0.1", self._settings.port)
                connection = socket.create_connection(address, _LISTEN_S)
                connection.settimeout(None)
            self._sockets.append(connection)
            body = self._send if self._settings.sends else self._receive
            thread = threading.Thread(target=body, args=(index, connection))
            self._threads.append(thread)
            thread.start()

    def _send(self, index: int, connection: socket.socket) -> None:
        data = os.urandom(self._settings.num_bytes)
        with contextlib.suppress(OSError):
            while True:
                with self._changed:
                    while self._counts[index] >= self._allowed[index] and not self._is_closing:
                        self._changed.wait()
                if self._is_closing:
                    return
                connection.sendall(data)
                self._counts[index] += 1

    def _receive(self, index: int, connection: socket.socket) -> None:
        slot = bytearray(self._settings.num_bytes)
        with contextlib.suppress(OSError):
            while (
                connection.recv_into(slot, len(slot), socket.MSG_WAITALL) == len(slot)
                and not self._is_closing
            ):
                with self._changed:
                    self._counts[index] += 1
                    self._changed.notify_all()


def main() -> None:
    """Body of one process."""
    settings = _Settings(**json.loads(sys.argv[1]))
    listener = None
    port = settings.port
    if not port:
        listener = socket.create_server(("127.0.0.1", 0), backlog=settings.num_streams)
        listener.settimeout(_LISTEN_S)
        port = listener.getsockname()[1]
    streams = _Streams(settings, listener)
    try:
        serve(streams.answer, port=port)
    finally:
        streams.close()


if __name__ == "__main__":
    main()
