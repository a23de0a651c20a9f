"""Calls that match no method are answered for any path, and other calls are not affected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from raw_http2 import RawClient

from impala_server.front_end.listener import path_guard
from impala_server.front_end.listener.path_guard import TASK, UNKNOWN_METHOD, make_guarded_server

WAIT_S = 20.0
SERVICE = "test.Service"
PATHS = (b"/\xff\xfe/\xff", b"\xff", b"/test.Service/Unary\x80", b"/test.Service/Nothing", b"/")
UNIMPLEMENTED = 12


class _Witness(grpc.aio.ServerInterceptor):
    """Notes what an interceptor is told of every call.

    Attributes:
      methods: in order.
    """

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: Any
    ) -> Any:
        self.methods.append(details.method)
        return await continuation(details)


async def _unary(request: bytes, unused_context: Any) -> bytes:
    return request


async def _echo(requests: AsyncIterator[bytes], unused_context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


def _run(test: Callable[[str, grpc.aio.Channel, _Witness], Awaitable[None]]) -> None:
    async def body() -> None:
        witness = _Witness()
        server = make_guarded_server([("grpc.so_reuseport", 0)], [witness], 10)
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(_unary),
            "Echo": grpc.stream_stream_rpc_method_handler(_echo),
        }
        server.add_registered_method_handlers(SERVICE, handlers)  # type: ignore[attr-defined]
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with asyncio.timeout(WAIT_S):
            async with grpc.aio.insecure_channel(address) as channel:
                await test(address, channel, witness)
            await server.stop(0.0)
        assert TASK not in {task.get_name() for task in asyncio.all_tasks() if not task.done()}

    asyncio.run(body())


def _statuses(address: str, paths: tuple[bytes, ...]) -> list[int | None]:
    found = []
    for path in paths:
        with RawClient(address) as client:
            client.call(path)
            found.append(client.status())
    return found


def test_paths_of_no_method_are_unimplemented_and_streams_go_on() -> None:
    """Seen to fail with `grpc.aio.server`: no status, and the stream broke within 1 s."""

    async def test(address: str, channel: grpc.aio.Channel, unused_witness: _Witness) -> None:
        stream = channel.stream_stream(f"/{SERVICE}/Echo")()
        await stream.write(b"before")
        assert await stream.read() == b"before"

        for _ in range(10):
            assert await asyncio.to_thread(_statuses, address, PATHS) == [UNIMPLEMENTED] * 5

        await stream.write(b"after")
        assert await stream.read() == b"after"
        assert await channel.unary_unary(f"/{SERVICE}/Unary")(b"x") == b"x"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF

    _run(test)


def test_many_calls_of_no_method_on_one_connection_are_each_answered() -> None:
    async def test(address: str, unused_channel: grpc.aio.Channel, witness: _Witness) -> None:
        def flood() -> list[int]:
            with RawClient(address) as client:
                for number in range(50):
                    client.call(b"/\xff", stream=2 * number + 1)
                return client.statuses(50, WAIT_S)

        assert await asyncio.to_thread(flood) == [UNIMPLEMENTED] * 50
        assert witness.methods == [UNKNOWN_METHOD] * 50

    _run(test)


def test_interceptors_see_methods_as_they_are() -> None:
    async def test(unused_address: str, channel: grpc.aio.Channel, witness: _Witness) -> None:
        await channel.unary_unary(f"/{SERVICE}/Unary")(b"")
        assert witness.methods == [f"/{SERVICE}/Unary"]

    _run(test)


def test_server_that_is_stopped_ends_calls_of_no_method_too() -> None:
    """`_run` fails where the task that takes them in outlives its server."""

    async def test(address: str, unused_channel: grpc.aio.Channel, unused: _Witness) -> None:
        assert await asyncio.to_thread(_statuses, address, PATHS[:1]) == [UNIMPLEMENTED]

    _run(test)


def test_installed_grpc_can_be_guarded() -> None:
    """Fails when an update of gRPC moves what the guard is made of."""
    assert path_guard.is_supported()


def test_grpc_built_in_another_way_serves_unguarded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(path_guard, "is_supported", lambda: False)

    async def test(unused_address: str, channel: grpc.aio.Channel, unused: _Witness) -> None:
        assert await channel.unary_unary(f"/{SERVICE}/Unary")(b"x") == b"x"

    _run(test)
    assert "cannot be kept from reading paths" in caplog.text
