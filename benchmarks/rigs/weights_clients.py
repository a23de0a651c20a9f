"""Clients that fetch weights at the same moment, as actors do after an update.

They use the product's own client: chunks are put together and the digest is checked; then the
weights are dropped. `WeightsClients` is the benchmark's side; this module run as a process is
a share of them, a thread for each.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from benchmarks.rigs.synthetic_actors import own_connection
from benchmarks.rigs.worker_process import WorkerGroup, serve
from benchmarks.suite.section import Json
from impala_common.process.allocator import keep_large_buffers

_MODULE = "benchmarks.rigs.weights_clients"
_FETCH_S = 600.0


class Fetched(NamedTuple):
    """What one fetch of all clients took.

    Attributes:
      wall_s: until the last client had the weights.
      cpu_s: CPU seconds of the clients' processes.
    """

    wall_s: float
    cpu_s: float


class WeightsClients(WorkerGroup):
    """Any number of clients, spread over a few processes."""

    def __init__(
        self,
        address: str,
        environment: Json,
        num_clients: int,
        num_processes: int = 2,
        cores: list[int] | None = None,
    ) -> None:
        """Starts and registers them.

        Args:
          address: of the learner.
          environment: of the run, as EnvironmentSpec.to_json says.
          num_clients: connections.
          num_processes: processes that share them.
          cores: cores they may run on; None: all.
        """
        common = {"address": address, "environment": environment}
        super().__init__(
            _MODULE,
            num_clients,
            num_processes,
            lambda k, share: {**common, "name": f"w{k}", "num_clients": share},
            cores,
        )

    def fetch(self) -> Fetched:
        """Lets every client fetch the newest weights once, all at the same time."""
        before_s, start_s = self.cpu_s, time.monotonic()
        self.ask("fetch", _FETCH_S)
        return Fetched(time.monotonic() - start_s, self.cpu_s - before_s)


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What one process of them is told."""

    address: str
    environment: Json
    name: str
    num_clients: int


class _Share:
    """The clients of this process."""

    def __init__(self, settings: _Settings) -> None:
        from impala_actor.acting.learner_client import LearnerClient
        from impala_common.spec.specs import EnvironmentSpec

        environment = EnvironmentSpec.from_json(settings.environment)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(settings.num_clients)
        self._clients = []
        for k in range(settings.num_clients):
            client = LearnerClient(settings.address, f"{settings.name}-{k}", 60.0, self._stop)
            own_connection(client)
            self._clients.append((client, client.register(environment, 1)))

    def answer(self, unused_request: Json) -> Json:
        """Fetches."""
        for fetching in [self._pool.submit(self._fetch, k) for k in range(len(self._clients))]:
            fetching.result()
        return {}

    def close(self) -> None:
        """Ends all of them."""
        self._stop.set()
        self._pool.shutdown()
        for client, _ in self._clients:
            client.close()

    def _fetch(self, index: int) -> None:
        client, session = self._clients[index]
        weights = client.retrying()(client.get_weights, session, None)
        if weights is None:
            raise SystemExit("the learner had no weights")


def main() -> None:
    """Body of one process of them."""
    logging.basicConfig(level=logging.ERROR)
    keep_large_buffers()  # as an actor does
    share = _Share(_Settings(**json.loads(sys.argv[1])))
    try:
        serve(share.answer)
    finally:
        share.close()


if __name__ == "__main__":
    main()
