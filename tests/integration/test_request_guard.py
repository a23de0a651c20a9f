"""Unary methods read requests with a deadline and refuse invalid bytes; dead servers are
replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from raw_http2 import RawClient

from impala_common.errors import AddressInUseError
from impala_common.rpc.addresses import port_of
from impala_server.front_end.listener.listener import Listener
from impala_server.front_end.listener.request_guard import RequestGuard

WAIT_S = 20.0
SERVICE = "test.Service"


class _Methods:
    """Three forms of a method with one request, which answer with what they were asked."""

    async def unary(self, request: Any, unused_context: Any) -> Any:
        return request

    async def generator(self, request: Any, unused_context: Any) -> AsyncIterator[Any]:
        yield request
        yield request

    async def writer(self, request: Any, context: Any) -> None:
        await context.write(request)
        await context.write(request)


def _build(deadline_s: float) -> Callable[[str], tuple[grpc.aio.Server, str]]:
    codec = {
        "request_deserializer": health_pb2.HealthCheckRequest.FromString,
        "response_serializer": health_pb2.HealthCheckRequest.SerializeToString,
    }
    methods = _Methods()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(methods.unary, **codec),
        "Generator": grpc.unary_stream_rpc_method_handler(methods.generator, **codec),
        "Writer": grpc.unary_stream_rpc_method_handler(methods.writer, **codec),
    }

    def build(address: str) -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0)], interceptors=[RequestGuard(deadline_s)]
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        port = port_of(address) if address else 0
        try:
            return server, f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
        except RuntimeError as error:
            raise AddressInUseError(address) from error

    return build


def _run(test: Callable[[Listener, grpc.aio.Channel], Awaitable[None]], deadline_s: float) -> None:
    async def body() -> None:
        listener = Listener(_build(deadline_s))
        await listener.start()
        try:
            async with asyncio.timeout(WAIT_S), grpc.aio.insecure_channel(listener.address) as one:
                await test(listener, one)
        finally:
            await listener.stop(0.0)

    asyncio.run(body())


@pytest.mark.parametrize("method", ["Unary", "Generator", "Writer"])
def test_request_that_is_sent_is_answered_as_without_the_guard(method: str) -> None:
    async def test(unused_listener: Listener, channel: grpc.aio.Channel) -> None:
        request = health_pb2.HealthCheckRequest(service="x").SerializeToString()
        path = f"/{SERVICE}/{method}"
        if method == "Unary":
            assert await channel.unary_unary(path)(request) == request
        else:
            assert [one async for one in channel.unary_stream(path)(request)] == [request] * 2

    _run(test, WAIT_S)


@pytest.mark.parametrize("method", ["Unary", "Generator", "Writer"])
@pytest.mark.parametrize("what", ["nothing", "an end", "no message"])
def test_request_that_is_none_is_invalid(method: str, what: str) -> None:
    """Seen to fail without the guard: it waited for ever, or the code was UNKNOWN."""

    async def test(unused_listener: Listener, channel: grpc.aio.Channel) -> None:
        call = channel.stream_stream(f"/{SERVICE}/{method}")()
        if what == "an end":
            await call.done_writing()
        elif what == "no message":
            await call.write(b"\xff\xff")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert {
            "nothing": "within 0.2 s", "an end": "expected a request", "no message": "no message",
        }[what] in await call.details()  # fmt: skip

    _run(test, 0.2)


def test_server_that_dies_is_made_anew_on_its_address_again_and_again() -> None:
    """Seen to fail (nobody listened any more) without the watch."""

    async def test(listener: Listener, unused_channel: grpc.aio.Channel) -> None:
        for revivals in (1, 2, 3):
            with RawClient(listener.address) as client:
                client.call(b"/\xff")
                while listener.num_revivals < revivals:
                    await asyncio.sleep(0.02)
            async with grpc.aio.insecure_channel(listener.address) as fresh:
                call = fresh.unary_unary(f"/{SERVICE}/Unary")
                assert await call(b"", wait_for_ready=True, timeout=WAIT_S) == b""

    _run(test, WAIT_S)
