"""Keeps a method path that is not UTF-8 from crashing grpc.aio.

Made by the front end, once for the data plane and once for administration. grpc.aio
(1.81 to 1.85 at least) reads the path of every call that matches no method as UTF-8 in
the one loop that takes calls in, before any interceptor. Other bytes there end that
loop. The tasks it then cancels (1.85) own memory that the core still writes to, and the
process crashes. So a task beside that loop takes in the calls that match no method and never reads
their path. Calls of registered methods are handled as usual.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # no stubs

_LOG = logging.getLogger(__name__)

UNKNOWN_METHOD = "/unknown"
"""Stands for the path of all calls that match no method, before interceptors and in the log."""

TASK = "unknown-methods"
"""Name of the task that takes them in, one a server."""

_FUNCTIONS = ("_handle_rpc", "_schedule_rpc_coro")
_METHODS = ("_make_request_call_future", "_request_call")


def make_guarded_server(
    options: Sequence[tuple[str, int | str]],
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    maximum_concurrent_rpcs: int | None = None,
) -> grpc.aio.Server:
    """Returns a server, as `grpc.aio.server` does; its methods must all be registered.

    Generated code registers methods; generic handlers are never found. With a gRPC whose internals
    differ, the result is an ordinary server, which `Listener` replaces if it dies.
    """
    plain = cygrpc.AioServer
    if is_supported():
        # Grpc.aio looks it up when it makes a server; there is no public parameter for it.
        cygrpc.AioServer = PathGuard
    else:
        _LOG.warning("this gRPC (%s) cannot be kept from reading paths", grpc.__version__)
    try:
        return grpc.aio.server(
            options=options,
            interceptors=interceptors,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )
    finally:
        cygrpc.AioServer = plain


def is_supported() -> bool:
    """Returns whether the installed gRPC has the internals that this class uses."""
    has_methods = all(hasattr(cygrpc.AioServer, name) for name in _METHODS)
    return has_methods and all(hasattr(cygrpc, name) for name in _FUNCTIONS)


class PathGuard(cygrpc.AioServer):  # type: ignore[misc]  # no stubs
    """The core's server; calls that match no method are taken in outside its loop.

    They do not count towards the limit of concurrent calls: each is answered at once.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pool: Any, handlers: Any, guards: Any, *more: Any
    ) -> None:
        """Takes gRPC's own arguments; later versions pass more."""
        super().__init__(loop, pool, handlers, guards, *more)
        self._own_loop = loop
        self._guards = tuple(guards or ())
        self._answering: set[asyncio.Task[None]] = set()

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Returns a future of the next call of `method`; None stands for all unknown methods.

        The future for None ends with the server: the core's loop never sees an unknown call.
        """
        if method is not None:
            future: asyncio.Future[Any] = super()._make_request_call_future(method)
            return future
        return self._own_loop.create_task(self._answer_unknown(), name=TASK)

    async def _answer_unknown(self) -> None:
        """Answers each with UNIMPLEMENTED, or as interceptors decide, until the server stops."""
        while True:
            state = await self._request_call()
            handling = cygrpc._handle_rpc(
                UNKNOWN_METHOD, _NoMethods(), self._guards, state, self._own_loop, False
            )
            task = self._own_loop.create_task(
                cygrpc._schedule_rpc_coro(handling, state, self._own_loop, UNKNOWN_METHOD)
            )
            self._answering.add(task)  # the event loop itself holds only weak references
            task.add_done_callback(self._answering.discard)


class _NoMethods:
    """A handler table without entries."""

    def resolve_handler(self, unused_details: grpc.HandlerCallDetails) -> None:
        return None
