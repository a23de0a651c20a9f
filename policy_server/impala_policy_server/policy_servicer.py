"""PolicyServicer: `impala_rl.v1.PolicyService` on the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from impala_policy_server.dispatcher import Dispatcher
from impala_policy_server.play_stream import PlayStream
from impala_rl.v1 import policy_pb2, policy_pb2_grpc
from impala_server.front_end.listener.wire_errors import translated

POLICY_SERVICE = "impala_rl.v1.PolicyService"


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """Hands streams to the dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Serves the clients of `dispatcher`."""
        self._dispatcher = dispatcher

    async def Play(  # noqa: N802
        self,
        requests: AsyncIterator[policy_pb2.PlayRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Plays the slots of one client until it leaves."""
        async with translated(context):
            await PlayStream(self._dispatcher, context).run()
