"""Adds reflection and channelz to local listeners.

Added to listeners that only this machine can reach (loopback, Unix sockets):
reflection lists every service and message, channelz every connection's peer and traffic.
"""

from __future__ import annotations

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_reflection.v1alpha import reflection

from impala_common.rpc.addresses import is_local
from impala_server.front_end.monitoring.health import LEARNER_SERVICE

HEALTH_SERVICE = "grpc.health.v1.Health"
CHANNELZ_SERVICE = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name


def add_debug_services(
    server: grpc.aio.Server, host: str, services: tuple[str, ...] = (LEARNER_SERVICE,)
) -> None:
    """Adds reflection and channelz to a server that is not started yet, if `host` is local.

    Args:
      server: the server.
      host: where it will listen.
      services: full names of the services it offers beside health.
    """
    if not is_local(host):
        return
    channelz.add_channelz_servicer(server)
    names = (*services, HEALTH_SERVICE, CHANNELZ_SERVICE, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
