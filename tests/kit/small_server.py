"""SmallServer: what the two small implementations of the protocol share, one server on a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

MAX_BYTES = 1 << 20


class SmallServer:
    """A context manager; `address` once entered.

    Attributes:
      fault: name of the one thing that is wrong; empty: nothing is.
    """

    def __init__(
        self,
        fault: str,
        token: str,
        add_to_server: Callable[[Any, Any], None],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Serves on a free port of this machine.

        Args:
          fault: see the class.
          token: that clients must show; empty: none.
          add_to_server: the generated function.
          max_bytes: of a message that it reads; -1: any.
        """
        self._max_bytes = max_bytes
        self.fault = fault
        self.address = ""
        self._token = token
        self._add_to_server = add_to_server
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="small-server")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10.0)
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._thread.join(10.0)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """Asks it to end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        size = -1 if self.fault == "message-size" else self._max_bytes
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", size)])
        self._add_to_server(self, server)
        if self.fault == "unknown-method":
            server.add_generic_rpc_handlers((Anything(),))
        if self._token or self.fault == "token":
            port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self.address = f"127.0.0.1:{port}"
        self._started.set()
        await self._stopping.wait()
        await server.stop(0.5)


class Anything(grpc.GenericRpcHandler):
    """Answers every method."""

    def service(self, unused_details: Any) -> Any:
        async def answer(unused_request: bytes, unused_context: Any) -> bytes:
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)
