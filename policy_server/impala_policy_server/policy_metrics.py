"""Serves /metrics of a policy server for Prometheus, on its own port.

Values are read from the dispatcher at each scrape, by a thread of the HTTP server; nothing is
stored twice. Labels have a few fixed values, never text from a client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from impala_common.rpc.addresses import join_address
from impala_policy_server.dispatcher import Dispatcher
from impala_policy_server.learner_source import LearnerSource
from impala_policy_server.policy_engine import PolicyEngine
from impala_policy_server.policy_source import PolicySource
from impala_policy_server.serving_figures import Buckets
from impala_server.front_end.monitoring.rpc_metrics import RpcMetrics
from impala_server.front_end.monitoring.scrape_server import serve_metrics

VERDICTS = ("ACCEPTED", "DUPLICATE", "STALE", "CAPACITY", "INVALID")
"""Values of the label `verdict`."""

NAMES = {
    "impala_policy_server_clients": "Clients, by whether they have a stream.",
    "impala_policy_server_slots": "Slots, by state: live ones, and those that wait for an action.",
    "impala_policy_server_draining": "1 while clients are told to stop.",
    "impala_policy_server_version": "Version of the weights that choose actions.",
    "impala_policy_server_lag_updates": "Updates between the learner's newest known "
    "version and the oldest weights of the last message to it.",
    "impala_policy_server_unrolls_waiting": "Complete unrolls that are not sent yet.",
    "impala_policy_server_batch_slots": "Slots decided in one batch.",
    "impala_policy_server_batch_wait_seconds": "From a batch's first observation to its decision.",
    "impala_policy_server_observations_total": "Observations taken, without repetitions.",
    "impala_policy_server_repetitions_total": "Observations that clients sent again.",
    "impala_policy_server_decisions_total": "Actions chosen.",
    "impala_policy_server_inference_seconds_total": "Seconds spent choosing actions.",
    "impala_policy_server_lost_slots_total": "Observations of slots that were not known.",
    "impala_policy_server_silent_slots_total": "Slots given up after the slot timeout, their "
    "episodes truncated.",
    "impala_policy_server_abandoned_episodes_total": "Episodes that clients left by a reset.",
    "impala_policy_server_messages_total": "Messages of unrolls to the learner, by its verdict.",
    "impala_policy_server_sent_steps_total": "Agent steps sent to the learner.",
}
"""Help by name of everything exported under `impala_policy_server_`."""

_COUNTS = {
    "impala_policy_server_observations_total": "observations",
    "impala_policy_server_repetitions_total": "repetitions",
    "impala_policy_server_decisions_total": "decisions",
    "impala_policy_server_inference_seconds_total": "inference_s",
    "impala_policy_server_lost_slots_total": "lost",
    "impala_policy_server_silent_slots_total": "silent_slots",
    "impala_policy_server_abandoned_episodes_total": "abandoned_episodes",
}


class PolicyCollector:
    """Makes metric families from the state of a dispatcher; called by a scrape's thread."""

    def __init__(self, dispatcher: Dispatcher, source: PolicySource) -> None:
        """Reads both, and changes neither."""
        self._dispatcher = dispatcher
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Yields every family; those of the engine once the first client has come."""
        clients = self._dispatcher.clients
        connected, number = clients.num_connected, len(clients)
        yield _gauge(
            "impala_policy_server_clients",
            "state",
            {"connected": connected, "away": number - connected},
        )
        yield _gauge(
            "impala_policy_server_draining", "", {"": float(self._dispatcher.ended.is_set())}
        )
        figures = self._dispatcher.figures
        yield _histogram("impala_policy_server_batch_slots", figures.batch_sizes)
        yield _histogram("impala_policy_server_batch_wait_seconds", figures.waits_s)
        engine = self._dispatcher.engine
        if engine is not None:
            yield from self._of_engine(engine)
        if isinstance(self._source, LearnerSource):
            yield from self._of_learner(self._source)

    def _of_engine(self, engine: PolicyEngine) -> Iterator[Metric]:
        slots = {"live": int(engine.table.is_live.sum()), "pending": engine.num_pending}
        yield _gauge("impala_policy_server_slots", "state", slots)
        yield _gauge("impala_policy_server_version", "", {"": engine.version})
        for name, attribute in _COUNTS.items():
            value = getattr(engine.counts, attribute)
            yield CounterMetricFamily(name, NAMES[name], value=value)

    def _of_learner(self, source: LearnerSource) -> Iterator[Metric]:
        yield _gauge("impala_policy_server_unrolls_waiting", "", {"": source.num_waiting})
        session = source.session
        if session is None:
            return
        verdicts = session.verdicts
        family = CounterMetricFamily(
            "impala_policy_server_messages_total",
            NAMES["impala_policy_server_messages_total"],
            labels=["verdict"],
        )
        for verdict in VERDICTS:
            family.add_metric([verdict.lower()], verdicts.get(verdict, 0))
        yield family
        name = "impala_policy_server_sent_steps_total"
        yield CounterMetricFamily(name, NAMES[name], value=session.num_steps)
        yield _gauge("impala_policy_server_lag_updates", "", {"": session.policy_lag})


class PolicyMetrics:
    """The HTTP server of `/metrics`.

    Attributes:
      address: HOST:PORT it listens on.
      interceptor: counts RPCs; to be put first among a gRPC server's interceptors.
    """

    def __init__(self, host: str, port: int) -> None:
        """Listens at once, on any free port if `port` is negative; `attach` adds what is shown.

        Raises:
          ConfigError: the host is no address of this machine.
          AddressInUseError: the port is taken.
        """
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.interceptor = RpcMetrics(self._registry)
        self._server = serve_metrics(host, port, make_wsgi_app(self._registry))
        self.address = join_address(host, self._server.server_port)

    def attach(self, dispatcher: Dispatcher, source: PolicySource) -> None:
        """Shows the figures of a policy server."""
        self._registry.register(PolicyCollector(dispatcher, source))

    def close(self) -> None:
        """Stops listening; waits for no client."""
        self._server.close()


def _gauge(name: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, NAMES[name], labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], float(value))
    return family


def _histogram(name: str, buckets: Buckets) -> HistogramMetricFamily:
    counted = list(buckets.cumulative())
    return HistogramMetricFamily(name, NAMES[name], buckets=counted, sum_value=buckets.total)
