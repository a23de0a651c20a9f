"""serve: the policy server, from the opening of its port to an ordered end.

One event loop with the gRPC server, the dispatcher and the engine; a thread of its own speaks with
the learner. Called by the command and, on a thread, by tests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import grpc

from impala_common.config import TrainConfig
from impala_common.errors import RunFinishedError
from impala_common.rpc.addresses import port_of
from impala_common.rpc.channel import server_options
from impala_common.rpc.protobuf_backend import require_upb
from impala_policy_server.dispatcher import Dispatcher
from impala_policy_server.policy_admin_plane import AdminSettings, PolicyAdminPlane
from impala_policy_server.policy_health import add_policy_health
from impala_policy_server.policy_servicer import POLICY_SERVICE, PolicyServicer
from impala_policy_server.policy_source import PolicySource
from impala_rl.v1 import policy_pb2_grpc
from impala_server.front_end.admin.audit_log import AuditLog
from impala_server.front_end.listener.auth_interceptor import make_interceptor
from impala_server.front_end.listener.connections import max_connections, raise_descriptor_limit
from impala_server.front_end.listener.credentials import bind, remind_of_insecure_port
from impala_server.front_end.listener.debug_services import add_debug_services
from impala_server.front_end.listener.listener import Listener
from impala_server.front_end.listener.path_guard import make_guarded_server
from impala_server.front_end.listener.request_guard import RequestGuard

if TYPE_CHECKING:  # imported late: a server without it does not pay for the import
    from impala_policy_server.policy_metrics import PolicyMetrics

_LOG = logging.getLogger(__name__)
_DRAIN_S = 3.0
_GRACE_S = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """How clients are served.

    Attributes:
      listening: sections transport (host, port) and security (TLS, token) say where and to whom,
        under the rules of a learner's port.
      max_clients: clients at a time.
      max_batch_wait_s: longest wait of an observation for those of other slots.
      slot_timeout_s: silence after which a slot is given up.
      admin: where administrators find it.
      prometheus_host: address of the Prometheus endpoint.
      prometheus_port: its port; 0: none, -1: any free one.
    """

    listening: TrainConfig
    max_clients: int = 1024
    max_batch_wait_s: float = 0.002
    slot_timeout_s: float = 60.0
    admin: AdminSettings = dataclasses.field(default_factory=AdminSettings)
    prometheus_host: str = "127.0.0.1"
    prometheus_port: int = 0


class Bound(NamedTuple):
    """What is known once the port is open.

    Attributes:
      address: HOST:PORT for clients.
      admin_address: of the admin service; "" for none.
      prometheus_address: HOST:PORT of the metrics; "" for none.
      request_end: asks for the end, with who wants it; safe from any thread.
    """

    address: str
    admin_address: str
    prometheus_address: str
    request_end: Callable[[str], None]


OnBound = Callable[[Bound], None]
"""Called once the port is open."""


async def serve(
    settings: ServingSettings, make_source: Callable[[], PolicySource], on_bound: OnBound
) -> None:
    """Serves until the run has finished, the source has failed, or the end was asked for.

    Args:
      settings: how clients are served.
      make_source: makes the source of the policy, on the event loop.
      on_bound: see OnBound.

    Raises:
      AddressInUseError: the port is taken.
      ImpalaError: what ended the source.
    """
    require_upb()
    loop = asyncio.get_running_loop()
    source = make_source()
    dispatcher = Dispatcher(
        source,
        max_clients=settings.max_clients,
        max_batch_wait_s=settings.max_batch_wait_s,
        slot_timeout_s=settings.slot_timeout_s,
    )
    metrics = _start_metrics(settings, dispatcher, source)
    counting = () if metrics is None else (metrics.interceptor,)
    admin = PolicyAdminPlane(settings.admin, settings.listening, dispatcher, counting)
    try:
        listener = _listen(settings, dispatcher, counting)
        await admin.start()
        await listener.start()
        address = listener.address
        tasks = [
            asyncio.create_task(dispatcher.sweep()),
            asyncio.create_task(remind_of_insecure_port(settings.listening, address)),
        ]
        try:
            on_bound(
                Bound(
                    address,
                    admin.address,
                    "" if metrics is None else metrics.address,
                    lambda why: _call(loop, lambda: dispatcher.drain(why)),
                )
            )
            await dispatcher.ended.wait()
            await _note_end(settings, dispatcher)
            await _let_clients_leave(dispatcher)
            await listener.stop(_GRACE_S)
        finally:
            for task in tasks:
                task.cancel()
    finally:
        await admin.stop()
        if metrics is not None:
            metrics.close()
        await source.close()
        if dispatcher.engine is not None:
            _LOG.info("served: %s", dataclasses.asdict(dispatcher.engine.counts))
    if dispatcher.failure is not None and not isinstance(dispatcher.failure, RunFinishedError):
        raise dispatcher.failure


async def _note_end(settings: ServingSettings, dispatcher: Dispatcher) -> None:
    """Writes the end into the audit file, if there is one."""
    if settings.admin.audit_file is None:
        return
    outcome = "ok" if dispatcher.failure is None else dispatcher.failure.reason
    await AuditLog(settings.admin.audit_file).write(
        "policy server",
        "End",
        outcome,
        text=dispatcher.why,
        num_clients=dispatcher.clients.num_connected,
    )


def _start_metrics(
    settings: ServingSettings, dispatcher: Dispatcher, source: PolicySource
) -> PolicyMetrics | None:
    if not settings.prometheus_port:
        return None
    from impala_policy_server.policy_metrics import PolicyMetrics

    metrics = PolicyMetrics(settings.prometheus_host, settings.prometheus_port)
    metrics.attach(dispatcher, source)
    return metrics


def _listen(
    settings: ServingSettings,
    dispatcher: Dispatcher,
    counting: tuple[grpc.aio.ServerInterceptor, ...],
) -> Listener:
    config = settings.listening
    transport = config.transport
    guards = [*counting, make_interceptor(config), RequestGuard()]
    options = server_options(max_connections(settings.max_clients, raise_descriptor_limit()))
    servicer = PolicyServicer(dispatcher)

    def build(address: str) -> tuple[grpc.aio.Server, str]:
        server = make_guarded_server(options, guards)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        add_policy_health(server, dispatcher.ended)
        add_debug_services(server, transport.host, (POLICY_SERVICE,))
        port = port_of(address) if address else transport.port
        return server, bind(server, transport.host, port, config)

    return Listener(build)


async def _let_clients_leave(dispatcher: Dispatcher) -> None:
    """Gives clients time to read the drain and to disconnect."""
    deadline_s = asyncio.get_running_loop().time() + _DRAIN_S
    while dispatcher.clients.num_connected and asyncio.get_running_loop().time() < deadline_s:
        await asyncio.sleep(0.02)
    dispatcher.close_all()


def _call(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(work)
