"""PolicyAdminServicer: `impala_rl.v1.PolicyAdminService` on the event loop.

Behind a listener of its own (`PolicyAdminPlane`). Answers from memory.
"""

from __future__ import annotations

import time
from typing import Any

import grpc

from impala_common.process.logs import printable
from impala_policy_server.clients import Client
from impala_policy_server.dispatcher import Dispatcher
from impala_rl.v1 import policy_admin_pb2 as pb
from impala_rl.v1 import policy_admin_pb2_grpc
from impala_server.front_end.admin.audit_log import AuditLog
from impala_server.front_end.listener.wire_errors import translated

POLICY_ADMIN_SERVICE = "impala_rl.v1.PolicyAdminService"

_PAGE = 100
_MAX_PAGE = 1000
_Context = grpc.aio.ServicerContext[Any, Any]


class PolicyAdminServicer(policy_admin_pb2_grpc.PolicyAdminServiceServicer):
    """Shows the clients of `dispatcher`, and ends it."""

    def __init__(self, dispatcher: Dispatcher, audit: AuditLog | None, who: str) -> None:
        """Prepares.

        Args:
          dispatcher: of the policy server.
          audit: the file that changes are written to; None: they are logged only.
          who: how callers were authenticated, such as "admin token".
        """
        self._dispatcher = dispatcher
        self._audit = audit
        self._who = who

    async def ListClients(  # noqa: N802
        self, request: pb.ListClientsRequest, context: _Context
    ) -> pb.ListClientsResponse:
        """Returns a page of clients, in the order of their names."""
        async with translated(context):
            return self._list(request)
        raise AssertionError("unreachable: translated aborts")

    async def DrainClients(  # noqa: N802
        self, request: pb.DrainClientsRequest, context: _Context
    ) -> pb.DrainClientsResponse:
        """Tells all clients to stop, and ends the server."""
        async with translated(context):
            dispatcher, peer = self._dispatcher, context.peer()
            num_connected = dispatcher.clients.num_connected
            if self._audit is not None:
                await self._audit.write(
                    f"{self._who} {peer}",
                    "DrainClients",
                    "ok",
                    request_id=request.header.request_id,
                    arguments={},
                    old="draining" if dispatcher.ended.is_set() else "serving",
                    new="draining",
                    num_clients=num_connected,
                )
            dispatcher.drain(f"an administrator ({printable(peer, 80)}) drains the clients")
            return pb.DrainClientsResponse(connected_client_count=num_connected)
        raise AssertionError("unreachable: translated aborts")

    def _list(self, request: pb.ListClientsRequest) -> pb.ListClientsResponse:
        size = min(request.page_size or _PAGE, _MAX_PAGE)
        clients = sorted(self._dispatcher.clients, key=lambda client: client.client_id)
        rest = [client for client in clients if client.client_id > request.page_token]
        response = pb.ListClientsResponse(
            clients=[self._pack(client) for client in rest[:size]],
            client_count=len(clients),
            is_draining=self._dispatcher.ended.is_set(),
        )
        if len(rest) > size:
            response.next_page_token = rest[size - 1].client_id
        return response

    def _pack(self, client: Client) -> pb.ClientStatus:
        engine = self._dispatcher.engine
        assert engine is not None, "a client has slots"
        table, places = engine.table, client.places
        is_live = table.is_live[places]
        status = pb.ClientStatus(
            client_id=client.client_id,
            client_run_id=client.client_run_id,
            peer=printable(client.peer, 200),
            is_connected=client.stream is not None,
            slot_count=len(places),
            live_slot_count=int(is_live.sum()),
            is_evaluation=client.is_evaluation,
            steps_per_second=client.steps_per_s if client.stream is not None else 0.0,
            observation_count=client.num_observations - client.num_repetitions,
            repetition_count=client.num_repetitions,
            policy_version=int(table.versions[places[is_live]].max()) if is_live.any() else -1,
        )
        status.last_heard.FromNanoseconds(int((time.monotonic() - client.heard_s) * 1e9))
        return status
