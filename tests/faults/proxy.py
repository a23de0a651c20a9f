"""FaultProxy: a TCP connection that misbehaves on demand, between an actor and the learner.

An asyncio server on 127.0.0.1 in a thread of its own; needs no root. Every fault holds for
connections that stand and for those to come, until `heal`. A black hole holds back what is
sent, as a network does whose packets are lost and sent again later.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

_CHUNK = 1 << 16
_START_S = 10.0
TO_LEARNER, TO_ACTOR = "to_learner", "to_actor"


class FaultProxy:
    """One listening port whose connections go to `target_port`."""

    def __init__(self, target_port: int, idle_s: float = 0.0) -> None:
        """Prepares.

        Args:
          target_port: of 127.0.0.1, where connections go.
          idle_s: a connection one of whose sides says nothing for so long is reset, as
            middleboxes do; 0: never.
        """
        self.target_port = target_port
        self.port = 0
        self.num_idle_resets = 0
        self._idle_s = idle_s or None
        self.num_bytes = {TO_LEARNER: 0, TO_ACTOR: 0}
        self.num_connections = 0
        self._held: set[str] = set()
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._free_s = {TO_LEARNER: 0.0, TO_ACTOR: 0.0}  # when the link has carried what came
        self._cut_after = self._flip_after = -1
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()
        self._is_ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._is_ready.wait(_START_S)
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_S)

    def black_hole(self, *directions: str) -> None:
        """Holds back all bytes, or those of one direction."""
        self._do(lambda: self._held.update(directions or (TO_LEARNER, TO_ACTOR)))

    def delay(self, seconds: float) -> None:
        """Delivers everything late."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def limit_rate(self, bytes_per_s: float) -> None:
        """Carries no more than that each way, over all connections together."""
        self._do(lambda: setattr(self, "_bytes_per_s", bytes_per_s))

    def cut_after(self, num_bytes: int) -> None:
        """Ends the connection that carries the n-th next byte to the learner, in its midst."""
        self._do(lambda: setattr(self, "_cut_after", num_bytes))

    def flip_after(self, num_bytes: int) -> None:
        """Flips a bit of the n-th next byte to the learner."""
        self._do(lambda: setattr(self, "_flip_after", num_bytes))

    def reset(self) -> None:
        """Resets all connections that stand (RST)."""
        self._do(lambda: [_reset(writer) for writer in list(self._writers)])

    def heal(self) -> None:
        """Ends all faults; what was held back goes on its way."""

        def end() -> None:
            self._held.clear()
            self._delay_s = self._bytes_per_s = 0.0
            self._cut_after = self._flip_after = -1

        self._do(end)

    def _do(self, work: Callable[[], Any]) -> None:
        async def change() -> None:
            async with self._changed:
                work()
                self._changed.notify_all()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(_START_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_ready.set()
        await self._stop.wait()
        server.close()
        for writer in list(self._writers):
            _reset(writer)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            far = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _reset(writer)
            return
        both = (writer, far[1])
        self._writers.update(both)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far[1], TO_LEARNER))
                group.create_task(self._pump(far[0], writer, TO_ACTOR))
        except* OSError:
            pass
        finally:
            self._writers.difference_update(both)
            for one in both:
                _reset(one)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        while data := await self._read(reader):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            if self._bytes_per_s:
                await self._wait_for_link(len(data), direction)
            async with self._changed:
                await self._changed.wait_for(lambda: direction not in self._held)
            self.num_bytes[direction] += len(data)
            if direction == TO_LEARNER:
                data = self._damage(data, writer)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the other side has ended")  # ends the pump the other way too

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        # In pieces of a twentieth of a second, so that a slow link flows rather than jumps.
        size = max(int(self._bytes_per_s / 20), 1) if self._bytes_per_s else _CHUNK
        try:
            async with asyncio.timeout(self._idle_s):
                return await reader.read(size)
        except TimeoutError:
            self.num_idle_resets += 1
            raise

    async def _wait_for_link(self, num_bytes: int, direction: str) -> None:
        now_s = time.monotonic()
        begin_s = max(self._free_s[direction], now_s)
        self._free_s[direction] = begin_s + num_bytes / self._bytes_per_s
        await asyncio.sleep(self._free_s[direction] - now_s)

    def _damage(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        if self._flip_after >= 0:
            place, self._flip_after = self._flip_after, self._flip_after - len(data)
            if place < len(data):
                self._flip_after = -1
                data = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        if self._cut_after >= 0:
            place, self._cut_after = self._cut_after, self._cut_after - len(data)
            if place < len(data):
                self._cut_after = -1
                writer.write(data[:place])
                raise ConnectionResetError("cut")
        return data


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST and without delivering what is left."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
