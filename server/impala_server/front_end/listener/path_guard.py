"""Keeps a method path that is not UTF-8 from crashing grpc.aio.

Made by the front end, once for the data plane and once for administration. grpc.aio
(1.81 to 1.85 at least) reads the path of every call that matches no method as UTF-8 in
the one loop that takes calls in, before any interceptor. Other bytes there end that
loop. The tasks it then cancels (1.85) own memory that the core still writes to, and the
process crashes. So calls that match no method are taken in beside that loop, by a
task that never looks at their path; calls of our methods go the way they always did.
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

    Generated code registers. Handlers that are only generic are never found. With a gRPC that is
    built in another way it is an ordinary server: `Listener` then has to make it anew.
    """
    plain = cygrpc.AioServer
    if is_supported():
        cygrpc.AioServer = PathGuard  # looked up when a server is made; nothing public takes one
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
    """Returns whether the installed gRPC has the parts this is made of."""
    has_methods = all(hasattr(cygrpc.AioServer, name) for name in _METHODS)
    return has_methods and all(hasattr(cygrpc, name) for name in _FUNCTIONS)


class PathGuard(cygrpc.AioServer):  # type: ignore[misc]  # no stubs
    """The core's server, with calls that match no method taken out of its loop.

    They do not count to the limit of calls at a time: each is answered at once.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pool: Any, handlers: Any, guards: Any, *more: Any
    ) -> None:
        """Takes what gRPC passes; more in later versions."""
        super().__init__(loop, pool, handlers, guards, *more)
        self._own_loop = loop
        self._guards = tuple(guards or ())
        self._answering: set[asyncio.Task[None]] = set()

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Returns what ends with the next call of `method`; None stands for all unknown ones.

        For None it ends only with the server, as it would if nobody ever called.
        """
        if method is not None:
            future: asyncio.Future[Any] = super()._make_request_call_future(method)
            return future
        return self._own_loop.create_task(self._answer_unknown(), name=TASK)

    async def _answer_unknown(self) -> None:
        """Answers each with UNIMPLEMENTED, or as interceptors want, until the server stops."""
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
    """Finds none; what gRPC asks for the handler of a call."""

    def resolve_handler(self, unused_details: grpc.HandlerCallDetails) -> None:
        return None
