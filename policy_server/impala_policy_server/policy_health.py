"""The standard health service of the policy server.

The learner's servicer with other names and another state: "" and PolicyService serve from the
moment the port is open until the server drains, "alive" as long as it answers at all.
"""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health_pb2_grpc

from impala_policy_server.policy_servicer import POLICY_SERVICE
from impala_server.front_end.monitoring.health import ALIVE, HealthServicer


class PolicyHealth(HealthServicer):
    """Answers for one policy server."""

    services = ("", POLICY_SERVICE, ALIVE)

    def __init__(self, ended: asyncio.Event) -> None:
        """Serves until `ended` is set, and is alive even then."""
        super().__init__(ended)

    def is_serving(self, service: str) -> bool | None:
        """Returns whether `service` serves; None for a name that does not exist."""
        if service not in self.services:
            return None
        return service == ALIVE or not self._ended.is_set()


def add_policy_health(server: grpc.aio.Server, ended: asyncio.Event) -> None:
    """Adds the health service to a server that is not started yet."""
    health_pb2_grpc.add_HealthServicer_to_server(PolicyHealth(ended), server)
