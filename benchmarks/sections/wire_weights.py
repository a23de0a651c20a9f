"""Weights to many clients at once: the product's front end beside plain TCP sockets.

Used by the section `wire`. Each round publishes a new version first, so the cost of
serialising it, once for all clients, is in the figures.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.rigs.front_end_alone import FrontEndAlone, make_config, stand_in
from benchmarks.rigs.raw_socket import RawSockets
from benchmarks.rigs.weights_clients import WeightsClients
from benchmarks.suite.section import Json, summarise
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec

ENVIRONMENT = EnvironmentSpec((TensorSpec("observation", (4,), "float32"),), ActionSpec.discrete(2))
_SAMPLE_S = 0.01


class PeakMemory:
    """The most memory a front end had while the context was open, in bytes."""

    def __init__(self, server: FrontEndAlone[Any]) -> None:
        """Watches `server`."""
        self._server = server
        self.num_bytes = 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """A context in which it is looked at a hundred times a second."""
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                self.num_bytes = max(self.num_bytes, self._server.own_bytes)
                time.sleep(_SAMPLE_S)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def measure_weights(num_clients: int, weights_bytes: int, num_rounds: int) -> Json:
    """Returns rates and costs of one snapshot to `num_clients` clients, beside raw sockets."""
    total_gb = num_clients * weights_bytes / 1e9
    walls, raws, server_s, client_s, growths = [], [], [], [], []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(stand_in(make_config(5, 1, max_actors=1024), weights_bytes))
        clients = stack.enter_context(
            WeightsClients(server.address, ENVIRONMENT.to_json(), num_clients)
        )
        sockets = stack.enter_context(RawSockets(num_clients, weights_bytes, listener_sends=True))
        clients.fetch()  # connects, and takes the memory that one version needs
        sockets.send_once()
        for _ in range(num_rounds):
            raws.append(sockets.send_once())
            server.learner.publish()
            before_bytes, before_s = server.own_bytes, server.cpu_s
            peak = PeakMemory(server)
            with peak.watched():
                fetched = clients.fetch()
            growths.append((peak.num_bytes - before_bytes) / 2**20)
            walls.append(fetched.wall_s)
            client_s.append(fetched.cpu_s / total_gb)
            server_s.append((server.cpu_s - before_s) / total_gb)
    return {
        "clients": num_clients,
        "weights_bytes": weights_bytes,
        "gb_per_s": summarise([total_gb / wall for wall in walls]),
        "raw_gb_per_s": summarise([total_gb / raw for raw in raws]),
        "ratio_to_raw": summarise([raw / wall for raw, wall in zip(raws, walls, strict=True)]),
        "server_s_per_gb": statistics.median(server_s),
        "client_s_per_gb": statistics.median(client_s),
        "server_growth_mib": statistics.median(growths),
    }
