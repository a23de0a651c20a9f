"""The standard `grpc.health.v1.Health` service of the learner.

Runs on the front end's event loop, on the data listener and the admin listener,
open to everyone: it returns one bit and parses one short name. Each answer is computed from the
learner link on request; nothing is stored here. Only names of `SERVICES` are known.

The servicer that comes with grpcio-health-checking (1.81, 1.85) is not used: its watchers of one
name share a condition that the first to leave deletes, so the others are never notified; and it
writes while it holds the condition, so that one watcher that does not read blocks `set`, and with
it the drain.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from impala_server.front_end.learner_link import LearnerLink

LEARNER_SERVICE = "impala_rl.v1.LearnerService"
ADMIN_SERVICE = "impala_rl.v1.AdminService"
LEARNING = "learning"
ALIVE = "alive"
SERVICES = ("", LEARNER_SERVICE, ADMIN_SERVICE, LEARNING, ALIVE)
"""Names that can be asked for: the whole server, its services, whether it learns, and whether it
hangs."""

SILENCE_S = 30.0
"""A learner process that is silent for this long hangs. It sends a status each second; long updates
and slow disks delay it."""
START_SILENCE_S = 120.0
"""The same before its first message: it has to load torch first."""

_MAX_WATCHES = 64
_WATCH_POLL_S = 1.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_Context = grpc.aio.ServicerContext[Any, Any]


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # no stubs
    """The service, whatever it answers for.

    Attributes:
      services: names that can be asked for.
    """

    services: tuple[str, ...]

    def __init__(self, ended: asyncio.Event) -> None:
        """Watchers are told at once when `ended` is set."""
        self._ended = ended
        self._num_watches = 0

    @abstractmethod
    def is_serving(self, service: str) -> bool | None:
        """Returns whether `service` serves; None for a name that does not exist."""

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """Answers at once; NOT_FOUND for a name that does not exist."""
        is_serving = self.is_serving(request.service)
        if is_serving is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"expected one of {', '.join(map(repr, self.services))}"
            )
        return health_pb2.HealthCheckResponse(status=_SERVING if is_serving else _NOT_SERVING)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Sends each change within a second."""
        if self._num_watches >= _MAX_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_WATCHES} watches are open already"
            )
        self._num_watches += 1
        try:
            last = None
            while True:
                is_serving = self.is_serving(request.service)
                if is_serving is None:
                    status = _UNKNOWN
                else:
                    status = _SERVING if is_serving else _NOT_SERVING
                if status != last:
                    last = status
                    yield health_pb2.HealthCheckResponse(status=status)
                await self._wait()
        finally:
            self._num_watches -= 1

    async def _wait(self) -> None:
        """Waits until something may have changed."""
        if self._ended.is_set():
            await asyncio.sleep(_WATCH_POLL_S)
            return
        try:
            async with asyncio.timeout(_WATCH_POLL_S):
                await self._ended.wait()
        except TimeoutError:
            return


class LearnerHealth(HealthServicer):
    """Answers for one learner.

    "", LearnerService and AdminService serve from the moment the port is open, also while the
    learner waits for its first actor, until it drains, ends or hangs. "learning" serves only
    while there is a run that takes unrolls. "alive" serves until the learner hangs, also while it
    drains: whoever kills what is not alive would else kill a learner that ends in order.
    """

    services = SERVICES

    def __init__(self, link: LearnerLink) -> None:
        """Answers from the state of `link`."""
        super().__init__(link.ended)
        self._link = link

    def is_serving(self, service: str) -> bool | None:
        """Returns whether `service` serves; None for a name that does not exist."""
        if service not in SERVICES:
            return None
        link = self._link
        patience_s = START_SILENCE_S if link.status.state == "STARTING" else SILENCE_S
        has_work = not link.ended.is_set() or link.is_notice
        is_alive = time.monotonic() - link.heard_s < patience_s
        if service == ALIVE:
            return is_alive
        return is_alive and has_work and (service != LEARNING or link.run is not None)


def add_health(server: grpc.aio.Server, link: LearnerLink) -> None:
    """Adds the health service of `link`'s learner to a server that is not started yet."""
    health_pb2_grpc.add_HealthServicer_to_server(LearnerHealth(link), server)
