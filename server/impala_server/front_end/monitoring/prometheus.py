"""Serves /metrics for Prometheus on its own port.

One table, `prometheus_series`, has the names. Values are read from the learner link at each scrape;
nothing is stored twice. Labels are bounded: outcomes, states, kinds, parts of the system, never
text from a client.

The HTTP server is `scrape_server`'s, on threads of the front end.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from impala_common.config import TrainConfig
from impala_common.process.installation import find_version
from impala_common.rpc.addresses import join_address
from impala_common.run.metrics import BOTTLENECK_PARTS
from impala_server.front_end.learner_link import LearnerLink
from impala_server.front_end.monitoring.prometheus_series import OWN, SERIES, STATES
from impala_server.front_end.monitoring.rpc_metrics import RpcMetrics
from impala_server.front_end.monitoring.scrape_server import serve_metrics
from impala_server.messages import LearnerStatus


class LearnerCollector:
    """Makes metric families from the learner link's state; called by a scrape's thread."""

    def __init__(self, config: TrainConfig, link: LearnerLink) -> None:
        """Reads `link`, whose status is replaced as a whole and never changed."""
        self._config = config
        self._link = link

    def collect(self) -> Iterator[Metric]:
        """Yields every family."""
        status = self._link.status
        yield from _families(status)
        yield _gauge("impala_build_info", {(): 1.0}, tuple(_build_info().items()))
        state = "DRAINING" if self._link.ended.is_set() else status.state
        yield _gauge("impala_state", {(name,): name == state for name in STATES}, "state")
        part = status.bottleneck.partition(":")[0]
        yield _gauge(
            "impala_bottleneck", {(name,): name == part for name in BOTTLENECK_PARTS}, "part"
        )
        yield _gauge("impala_draining", {(): self._link.ended.is_set()})
        transport = self._config.transport
        yield _gauge("impala_insecure_bind", {(): self._config.is_bound_insecurely})
        age_s = time.monotonic() - self._link.heard_s
        yield _gauge("impala_status_age_seconds", {(): age_s})
        yield _gauge("impala_max_actors", {(): transport.max_actors})


def _families(status: LearnerStatus) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for series in SERIES:
        value = status.number(series.metric)
        if value is None or not math.isfinite(value):
            continue
        family = families.get(series.name)
        if family is None:
            kind = CounterMetricFamily if series.name.endswith("_total") else GaugeMetricFamily
            labels = [series.label] if series.label else []
            family = families[series.name] = kind(series.name, series.help, labels=labels)
        family.add_metric([series.value] if series.label else [], value)  # type: ignore[attr-defined]
    yield from families.values()


def _gauge(
    name: str, values: Mapping[tuple[str, ...], float], label: Any = None
) -> GaugeMetricFamily:
    """Returns a gauge; `label` is one label's name, or pairs of constant labels."""
    if isinstance(label, tuple):
        family = GaugeMetricFamily(name, OWN[name], labels=[key for key, _ in label])
        family.add_metric([value for _, value in label], 1.0)
        return family
    family = GaugeMetricFamily(name, OWN[name], labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family


def _build_info() -> dict[str, str]:
    return {
        "version": find_version(),
        "grpcio": metadata.version("grpcio"),
        "python": platform.python_version(),
    }


class PrometheusEndpoint:
    """The HTTP server of `/metrics`; owned by the front end, on threads of its own.

    Attributes:
      address: HOST:PORT it listens on.
      interceptor: counts RPCs; to be put first among a gRPC server's interceptors.
    """

    def __init__(self, config: TrainConfig, link: LearnerLink) -> None:
        """Listens at once.

        Raises:
          ConfigError: the host is no address of this machine.
          AddressInUseError: the port is taken.
        """
        registry = CollectorRegistry()
        registry.register(LearnerCollector(config, link))
        ProcessCollector(registry=registry)
        self.interceptor = RpcMetrics(registry)
        host, port = config.checkpoint.prometheus_host, config.checkpoint.prometheus_port
        self._server = serve_metrics(host, port, make_wsgi_app(registry))
        self.address = join_address(host, self._server.server_port)

    def close(self) -> None:
        """Stops listening; waits for no client."""
        self._server.close()
