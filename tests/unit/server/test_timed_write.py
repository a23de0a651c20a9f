"""A write whose client is gone ends the call, and is no incident of the server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # what gRPC raises has no public name below InternalError

from impala_server.front_end.data_plane.timed_write import write_in_time
from impala_server.front_end.listener.wire_errors import translated


class GoneClient:
    """Context of a call whose connection broke, as grpc.aio behaves then."""

    def __init__(self) -> None:
        self.statuses: list[Any] = []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def write(self, unused_response: object) -> None:
        raise cygrpc.ExecuteBatchError('Failed "execute_batch": send_message')

    async def abort_with_status(self, status: Any) -> None:
        self.statuses.append(status)


def test_write_to_a_client_that_is_gone_ends_the_call_without_an_incident(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Seen to fail: each client that broke off was an error with an incident in the log."""
    assert issubclass(cygrpc.ExecuteBatchError, grpc.aio.InternalError)
    context: Any = GoneClient()

    async def serve() -> None:
        async with translated(context):
            await write_in_time(context, b"weights")

    with caplog.at_level("INFO"), pytest.raises(asyncio.CancelledError):
        asyncio.run(serve())

    assert context.statuses == []
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "left while a message was written" in caplog.text
