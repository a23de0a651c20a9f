"""Reads unary requests with a deadline; refuses bytes that do not parse and fields out of bounds.

The innermost interceptor of each listener, after authentication. gRPC itself waits for ever if a
client opens a call and sends nothing, and logs a stack trace for bytes that do not parse. Methods
with a stream of requests set deadlines of their own. Responses may be bytes: messages that were
serialised before.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from impala_common.codec.field_bounds import validate_bounds
from impala_common.errors import InvalidRequestError
from impala_common.rpc.limits import HELLO_DEADLINE_S
from impala_server.front_end.data_plane.timed_write import write_in_time
from impala_server.front_end.listener.wire_errors import translated

_Handler = Any  # Any: grpc.RpcMethodHandler, whose attributes the stubs do not know
_Context = grpc.aio.ServicerContext[Any, Any]


class RequestGuard(grpc.aio.ServerInterceptor):
    """Interceptor of methods with one request."""

    def __init__(self, deadline_s: float = HELLO_DEADLINE_S) -> None:
        """Gives clients `deadline_s` to send their request."""
        self._deadline_s = deadline_s

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Returns a handler with the same wire form that reads its request itself."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": _unless_bytes(handler.response_serializer),
        }
        if not handler.response_streaming:
            call = self._answer(handler.unary_unary)
            return grpc.stream_unary_rpc_method_handler(call, **codec)
        method = handler.unary_stream
        is_generator = inspect.isasyncgenfunction(method)
        stream = self._generate(method) if is_generator else self._answer(method)
        return grpc.stream_stream_rpc_method_handler(stream, **codec)

    def _answer(self, method: Any) -> Any:  # Any: handlers
        async def call(unused_requests: Any, context: _Context) -> Any:
            return await method(await self._read(context), context)

        return call

    def _generate(self, method: Any) -> Any:  # Any: handlers
        async def call(unused_requests: Any, context: _Context) -> None:
            request = await self._read(context)
            async with contextlib.aclosing(method(request, context)) as responses:
                async for response in responses:
                    await write_in_time(context, response)

        return call

    async def _read(self, context: _Context) -> Any:  # Any: the method's request
        async with translated(context):
            try:
                async with asyncio.timeout(self._deadline_s):
                    request = await context.read()
            except TimeoutError as error:
                raise InvalidRequestError(
                    f"expected the request within {self._deadline_s:g} s"
                ) from error
            if request is grpc.aio.EOF:
                raise InvalidRequestError("expected a request")
            if isinstance(request, Message):  # channelz and reflection have bytes of their own
                validate_bounds(request)
            return request
        raise AssertionError("unreachable: translated aborts")


def _unless_bytes(serialise: Callable[[Any], bytes]) -> Callable[[Any], bytes]:  # Any: messages
    return lambda response: response if isinstance(response, bytes) else serialise(response)
