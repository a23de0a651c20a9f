"""AdminServicer: unpacks requests of `impala_rl.v1.AdminService` and packs its responses.

Runs on the front end's event loop, behind a listener of its own. Queries are answered from memory.
Methods with a side effect are in `AdminChanges`, the base class.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import duration_pb2

from impala_common.errors import CapacityError, InvalidRequestError, LearnerUnavailableError
from impala_rl.v1 import admin_pb2
from impala_server.front_end.admin.actor_listing import list_actors
from impala_server.front_end.admin.admin_changes import AdminChanges
from impala_server.front_end.admin.admin_journal import AdminJournal
from impala_server.front_end.admin.admin_views import pack_checkpoints, pack_status
from impala_server.front_end.listener.wire_errors import translated
from impala_server.front_end.monitoring.server_facts import ServerFacts

_MIN_INTERVAL_S, _MAX_INTERVAL_S = 0.1, 60.0
_MAX_WATCHES = 32
_LOOK_TIMEOUT_S = 10.0
_Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(AdminChanges):
    """The control plane: its queries, and the changes that it inherits."""

    def __init__(self, facts: ServerFacts, journal: AdminJournal) -> None:
        """Answers queries from `facts`; makes changes through `journal`."""
        super().__init__(facts, journal)
        self._num_watches = 0

    async def GetStatus(  # noqa: N802
        self, request: admin_pb2.GetStatusRequest, context: _Context
    ) -> admin_pb2.GetStatusResponse:
        """Returns the learner's status."""
        async with translated(context):
            return admin_pb2.GetStatusResponse(status=pack_status(self._facts))
        raise AssertionError("unreachable: translated aborts")

    async def WatchStatus(  # noqa: N802
        self, request: admin_pb2.WatchStatusRequest, context: _Context
    ) -> AsyncIterator[admin_pb2.WatchStatusResponse]:
        """Sends the learner's status at an interval."""
        async with translated(context):
            interval_s = _unpack_interval(request)
            if self._num_watches >= _MAX_WATCHES:
                raise CapacityError(f"{_MAX_WATCHES} others watch already")
            self._num_watches += 1
            try:
                while True:
                    yield admin_pb2.WatchStatusResponse(status=pack_status(self._facts))
                    if self._facts.link.lost.is_set():
                        return
                    await asyncio.sleep(interval_s)
            finally:
                self._num_watches -= 1

    async def ListActors(  # noqa: N802
        self, request: admin_pb2.ListActorsRequest, context: _Context
    ) -> admin_pb2.ListActorsResponse:
        """Lists a page of the actors that filters let through, and their totals."""
        async with translated(context):
            run = self._facts.link.run
            if run is None:
                return admin_pb2.ListActorsResponse()
            return list_actors(run.sessions, request)
        raise AssertionError("unreachable: translated aborts")

    async def ListCheckpoints(  # noqa: N802
        self, request: admin_pb2.ListCheckpointsRequest, context: _Context
    ) -> admin_pb2.ListCheckpointsResponse:
        """Lists checkpoints."""
        async with translated(context):
            checkpoints = await asyncio.to_thread(pack_checkpoints, self._store)
            return admin_pb2.ListCheckpointsResponse(checkpoints=checkpoints)
        raise AssertionError("unreachable: translated aborts")

    async def ListParameters(  # noqa: N802
        self, request: admin_pb2.ListParametersRequest, context: _Context
    ) -> admin_pb2.ListParametersResponse:
        """Lists parameters."""
        async with translated(context):
            try:
                async with asyncio.timeout(_LOOK_TIMEOUT_S):
                    result = await self._facts.link.calls.call("parameters")
            except TimeoutError:
                raise LearnerUnavailableError(
                    f"the learner has not answered for {_LOOK_TIMEOUT_S:g} s"
                ) from None
            parameters = [admin_pb2.Parameter(**one) for one in result["parameters"]]
            return admin_pb2.ListParametersResponse(parameters=parameters)
        raise AssertionError("unreachable: translated aborts")


def _unpack_interval(request: admin_pb2.WatchStatusRequest) -> float:
    if not request.HasField("interval"):
        return 1.0
    interval: duration_pb2.Duration = request.interval
    interval_s: float = interval.seconds + interval.nanos / 1e9
    if not _MIN_INTERVAL_S <= interval_s <= _MAX_INTERVAL_S:
        raise InvalidRequestError(
            f"interval: expected {_MIN_INTERVAL_S:g} to {_MAX_INTERVAL_S:g} s, got {interval_s:g} s"
        )
    return interval_s
