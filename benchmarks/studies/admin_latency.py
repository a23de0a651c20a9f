"""How long `GetStatus` takes while CartPole trains: `python -m benchmarks.studies.admin_latency`.

The promise is 50 ms for 99 calls of 100, with actors pushing as fast as the
learner takes unrolls in. One client asks each 20 ms from a process of its own
that shares the machine's cores with all the others, as an administrator's would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from benchmarks.rigs.training_process import TrainingProcess
from benchmarks.suite.machine import save
from impala_actor.admin.admin_client import AdminClient, find_address, to_json
from impala_common.run import metrics

_INTERVAL_S = 0.02
_PROMISE_MS = 50.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyArguments:
    """Measures the latency of GetStatus under full ingest."""

    window_s: float = 20.0
    """Seconds of asking."""
    warm_up_updates: int = 300
    """Updates before the first question."""
    num_actors: int = 2
    """Actors that push unrolls."""
    name: str = "admin_latency"
    """Name of the result file; empty: not written."""


def measure(client: AdminClient, window_s: float) -> np.ndarray:
    """Returns the latency of each call, in milliseconds."""
    latencies = []
    start_s = time.monotonic()
    due_s = start_s
    while due_s - start_s < window_s:
        time.sleep(max(0.0, due_s - time.monotonic()))
        asked_s = time.perf_counter()
        client.call("GetStatus")
        latencies.append(1e3 * (time.perf_counter() - asked_s))
        due_s += _INTERVAL_S
    return np.array(latencies)


def main() -> None:
    """Runs it and prints the figures."""
    arguments = tyro.cli(LatencyArguments, prog="python -m benchmarks.studies.admin_latency")
    load_before = os.getloadavg()[0]
    options = ("--port", "0", "--total-steps", "1000000000", "--num-actors")
    with (
        tempfile.TemporaryDirectory() as folder,
        TrainingProcess(
            "CartPole-v1", Path(folder) / "run", *options, str(arguments.num_actors)
        ) as training,
    ):
        training.wait_for_updates(arguments.warm_up_updates)
        client = AdminClient(find_address(training.run_path, ""))
        with contextlib.closing(client):
            client.call("GetStatus")  # connects
            latencies = measure(client, arguments.window_s)
            status = to_json(client.call("GetStatus"))["status"]
    p50, p90, p99 = (float(value) for value in np.percentile(latencies, (50, 90, 99)))
    result = {
        "command": "python -m benchmarks.studies.admin_latency",
        "calls": len(latencies),
        "p50_ms": round(p50, 2),
        "p90_ms": round(p90, 2),
        "p99_ms": round(p99, 2),
        "max_ms": round(float(latencies.max()), 2),
        "promise_p99_ms": _PROMISE_MS,
        "is_kept": p99 <= _PROMISE_MS,
        "steps_per_s": round(status["metrics"][metrics.STEPS_PER_S]),
        "queue_fill": round(status["metrics"][metrics.QUEUE_FILL], 2),
        "bottleneck": status["bottleneck"],
        "load_average_before": round(load_before, 2),
    }
    for name, value in result.items():
        print(f"{name:<20}{value}")
    if arguments.name:
        print(f"written to {save(arguments.name, result)}")


if __name__ == "__main__":
    main()
