"""The front end's main function: a gRPC server on an event loop, in a process or thread.

Started by the supervisor. `front_end_main` is the body of both forms. It ends when the supervisor
says stop or the learner's pipes close, after a grace period at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import grpc

from impala_common.config import TrainConfig
from impala_common.errors import ImpalaError, QueueClosedError
from impala_common.rpc.addresses import port_of
from impala_common.rpc.channel import server_options
from impala_common.rpc.protobuf_backend import require_upb
from impala_common.run.run_directory import RunDirectory
from impala_rl.v1 import evaluation_pb2_grpc, learner_pb2_grpc
from impala_server.front_end.admin.admin_plane import AdminPlane
from impala_server.front_end.data_plane.learner_servicer import LearnerServicer
from impala_server.front_end.evaluation.evaluation_servicer import (
    EVALUATION_SERVICE,
    EvaluationServicer,
)
from impala_server.front_end.learner_link import LearnerLink
from impala_server.front_end.listener.auth_interceptor import make_interceptor
from impala_server.front_end.listener.connections import max_connections, raise_descriptor_limit
from impala_server.front_end.listener.credentials import bind, remind_of_insecure_port
from impala_server.front_end.listener.debug_services import add_debug_services
from impala_server.front_end.listener.listener import Listener
from impala_server.front_end.listener.path_guard import make_guarded_server
from impala_server.front_end.listener.request_guard import RequestGuard
from impala_server.front_end.monitoring.health import LEARNER_SERVICE, add_health
from impala_server.front_end.monitoring.server_facts import ServerFacts
from impala_server.messages import Bound, Failed, Stop, unexpected_message
from impala_server.storage.control_pipe import ControlPipe
from impala_server.storage.process_ends import STORAGE, WEIGHTS, ProcessEnds

if TYPE_CHECKING:  # imported late: a run without it does not pay for the import
    from impala_server.front_end.monitoring.prometheus import PrometheusEndpoint

_LOG = logging.getLogger(__name__)
_REPORT_INTERVAL_S = 0.5
_GRACE_S = 1.0
_DRAIN_S = 3.0
_LAST_WORDS_S = 1.0


def front_end_main(config: TrainConfig, run: RunDirectory, ends: ProcessEnds) -> None:
    """Serves until told to stop. Runs an event loop on the calling thread."""
    try:
        asyncio.run(_serve(config, run, ends))
    except Exception as error:
        if not isinstance(error, ImpalaError):
            _LOG.exception("the front end failed")
        ends.supervisor.send(Failed.of(error))
    finally:
        ends.close_pipes(_LAST_WORDS_S)


async def _serve(config: TrainConfig, run: RunDirectory, ends: ProcessEnds) -> None:
    require_upb()
    link = LearnerLink(
        config,
        ends.controls["learner"],
        ends.handoffs["learner"],
        ends.blocks[STORAGE],
        ends.blocks[WEIGHTS],
    )
    prometheus = _start_prometheus(config, link)
    try:
        await _serve_rpcs(config, run, ends, link, prometheus)
    finally:
        if prometheus is not None:
            prometheus.close()


async def _serve_rpcs(
    config: TrainConfig,
    run: RunDirectory,
    ends: ProcessEnds,
    link: LearnerLink,
    prometheus: PrometheusEndpoint | None,
) -> None:
    loop = asyncio.get_running_loop()
    counting = [] if prometheus is None else [prometheus.interceptor]
    guards = [*counting, make_interceptor(config), RequestGuard()]
    servicer = LearnerServicer(config, link)
    evaluations = EvaluationServicer(config, run, link)
    transport = config.transport
    options = server_options(max_connections(transport.max_actors, raise_descriptor_limit()))

    def build(address: str) -> tuple[grpc.aio.Server, str]:
        server = make_guarded_server(options, guards)
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(evaluations, server)  # type: ignore[no-untyped-call]
        add_health(server, link)
        services = (LEARNER_SERVICE, EVALUATION_SERVICE)
        add_debug_services(server, transport.host, services)
        port = port_of(address) if address else transport.port
        return server, bind(server, transport.host, port, config)

    listener = Listener(build)
    address = listener.address
    admin = AdminPlane(ServerFacts(config, run, link, address), counting)
    await admin.start()
    link.attach(loop)
    await listener.start()
    scraped = prometheus.address if prometheus is not None else None
    ends.supervisor.send(Bound(address, scraped))
    stop = asyncio.Event()
    loop.add_reader(ends.supervisor.fileno(), _on_supervisor, ends.supervisor, stop)
    reporting = asyncio.create_task(_report(link))
    reminding = asyncio.create_task(remind_of_insecure_port(config, address))
    try:
        await _first_of(stop.wait(), link.lost.wait())
        await _let_streams_end(link)
        await listener.stop(_GRACE_S)
    finally:
        await admin.stop()
        reporting.cancel()
        reminding.cancel()
        loop.remove_reader(ends.supervisor.fileno())
        link.detach(loop)
        link.close_history()
    if link.failure is not None:
        raise link.failure


def _start_prometheus(config: TrainConfig, link: LearnerLink) -> PrometheusEndpoint | None:
    if not config.checkpoint.prometheus_port:
        return None
    from impala_server.front_end.monitoring.prometheus import PrometheusEndpoint

    return PrometheusEndpoint(config, link)


def _on_supervisor(pipe: ControlPipe, stop: asyncio.Event) -> None:
    with contextlib.suppress(QueueClosedError):
        message = pipe.receive(0.0)
        if message is None:
            return
        if not isinstance(message, Stop):
            raise unexpected_message(message, "the front end")
    stop.set()
    asyncio.get_running_loop().remove_reader(pipe.fileno())


async def _let_streams_end(link: LearnerLink) -> None:
    """Gives actors and evaluators time to read that the run is over and to disconnect."""
    deadline = asyncio.get_running_loop().time() + _DRAIN_S
    while asyncio.get_running_loop().time() < deadline:
        num_actors = link.run.sessions.num_connected if link.run is not None else 0
        if not num_actors + link.evaluations.num_evaluators:
            return
        await asyncio.sleep(0.02)


async def _report(link: LearnerLink) -> None:
    while True:
        await asyncio.sleep(_REPORT_INTERVAL_S)
        link.report()


async def _first_of(*waits: object) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
