"""A thousand actors on one server: `python -m benchmarks.studies.actor_fleet`.

The front end is the product's own, in its process; beside it a learner that updates one batch over
and over. Actors speak the real protocol, many to a process (`rigs/fleet.py`). In turn: all register
at once; messages at rising rates, to the knee; the learner's updates with and without traffic;
actors that leave and come back; all fetch weights at once; and how long the display, the list of
actors and a scrape take meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.rigs.fleet import Fleet, Traffic
from benchmarks.rigs.front_end_alone import FrontEndAlone, make_config
from benchmarks.rigs.learner_alone import LearnerAlone
from benchmarks.rigs.unroll_source import make_vectors
from benchmarks.suite.machine import save
from benchmarks.suite.section import Json
from impala_common.config import ModelConfig, TrainConfig

_T, _SLOTS = 20, 8
_KNEE = 0.95
"""The knee is the highest rate of which this share is still taken."""
_NATURE_MB = 6.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetArguments:
    """Puts a fleet of actors on one server."""

    num_actors: int = 1000
    """Actors."""
    num_processes: int = 2
    """Processes that share them."""
    rates: tuple[float, ...] = (200.0, 400.0, 800.0, 1200.0, 1600.0, 2400.0)
    """Messages per second of all actors together; each has 8 unrolls of 20 steps."""
    learner_rate: float = 200.0
    """Messages per second while the learner, churn and display are looked at."""
    window_s: float = 8.0
    """Seconds of a window."""
    num_windows: int = 3
    """Windows with and without traffic in which the learner's updates are counted."""
    name: str = "actor_fleet"
    """Name of the result file; empty: not written."""


def main() -> None:
    """Measures, prints and saves."""
    arguments = tyro.cli(FleetArguments)
    source = make_vectors(_T, _SLOTS, 1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source.save(folder)
        server = stack.enter_context(_serve(arguments.num_actors))
        with Fleet(server.address, folder, 1, 1) as first:
            first.join()  # the run takes shape: network, storage
        empty_bytes = server.own_bytes
        fleet = stack.enter_context(
            Fleet(server.address, folder, arguments.num_actors, arguments.num_processes)
        )
        _measure(arguments, server, fleet, empty_bytes)


def _save(arguments: FleetArguments, result: Json) -> None:
    command = shlex.join(["python", "-m", "benchmarks.studies.actor_fleet", *sys.argv[1:]])
    settings = dataclasses.asdict(arguments) | {"T": _T, "unrolls": _SLOTS}
    load = round(os.getloadavg()[0], 1)
    save(
        arguments.name,
        {"fleet_command": command, "load_average": load, "settings": settings, **result},
    )


def _serve(num_actors: int) -> FrontEndAlone[LearnerAlone]:
    """Returns a front end and a learner of a network as large as the Nature CNN of Atari."""
    width = round((_NATURE_MB * 1e6 / 4 / 2) ** 0.5)  # two hidden layers for each of two heads
    base = make_config(_T, 32, max_actors=num_actors + 24)
    config: TrainConfig = dataclasses.replace(
        base,
        model=ModelConfig(model="mlp", hidden_sizes=(width, width)),
        checkpoint=dataclasses.replace(base.checkpoint, prometheus_port=-1),
    )
    return FrontEndAlone(config, lambda ends, path: LearnerAlone(ends, path, None))


def _measure(
    arguments: FleetArguments,
    server: FrontEndAlone[LearnerAlone],
    fleet: Fleet,
    empty_bytes: int,
) -> None:
    """Measures all of it; prints and keeps each part at once."""
    result: Json = {}

    def note(name: str, value: Any) -> None:  # Any: JSON
        result[name] = value
        sys.stdout.write(f"{name}: {json.dumps(value)}\n")
        sys.stdout.flush()
        if arguments.name:
            _save(arguments, result)

    cpu_s, start_s = server.cpu_s, time.monotonic()
    joined_s = fleet.join()
    wall_s = time.monotonic() - start_s
    note(
        "registration",
        {
            "actors": len(joined_s),
            "wall_s": wall_s,
            "per_s": len(joined_s) / wall_s,
            "p99_s": float(np.percentile(joined_s, 99)),
            "server_cpu_ms_each": 1e3 * (server.cpu_s - cpu_s) / len(joined_s),
        },
    )
    fleet.send(arguments.num_actors / 4, 6.0)  # each has sent: its stream is set up
    grown = server.own_bytes - empty_bytes
    note("memory", {"kib_per_actor": grown / 1024 / len(joined_s), "grown_mib": grown / 2**20})
    ladder = [_ingest(server, fleet, rate, arguments.window_s) for rate in arguments.rates]
    note("ingest", ladder)
    knee = [row for row in ladder if row["taken_share"] >= _KNEE]
    note("knee", knee[-1] if knee else None)
    note("learner", _learner(arguments, server, fleet))
    with _looking(server) as looks:
        churn_per_s = 0.1 * arguments.num_actors / 60
        row = _ingest(server, fleet, arguments.learner_rate, 2 * arguments.window_s, churn_per_s)
    note("churn", {"leave_per_minute": 60 * churn_per_s, **row})
    note("views", looks)
    cpu_s, start_s = server.cpu_s, time.monotonic()
    fetched_s, num_failed = fleet.fetch()
    wall_s = time.monotonic() - start_s
    note(
        "fetch",
        {
            "clients": len(fetched_s),
            "broken_off": num_failed,
            "wall_s": wall_s,
            "p99_s": float(np.percentile(fetched_s, 99)),
            "gb_per_s": len(fetched_s) * _NATURE_MB / 1e3 / wall_s,
            "server_cpu_s": server.cpu_s - cpu_s,
        },
    )


def _ingest(
    server: FrontEndAlone[LearnerAlone],
    fleet: Fleet,
    rate: float,
    window_s: float,
    leavers_per_s: float = 0.0,
) -> Json:
    cpu_s, start_s = server.cpu_s, time.monotonic()
    traffic: Traffic = fleet.send(rate, window_s, leavers_per_s)
    wall_s = time.monotonic() - start_s
    server_cpu_s = server.cpu_s - cpu_s
    p50_ms, p99_ms, top_ms = traffic.verdicts_ms
    return {
        "offered_per_s": rate,
        "messages_per_s": traffic.num_messages / wall_s,
        "taken_share": traffic.num_messages / wall_s / rate,
        "steps_per_s": traffic.num_unrolls * _T / wall_s,
        "verdict_p50_ms": p50_ms,
        "verdict_p99_ms": p99_ms,
        "verdict_max_ms": top_ms,
        "server_us_per_unroll": 1e6 * server_cpu_s / max(traffic.num_unrolls, 1),
        "server_cores": server_cpu_s / wall_s,
        "fleet_cores": traffic.cpu_s / wall_s,
        "num_left": traffic.num_left,
        "failures": traffic.failures,
    }


def _learner(arguments: FleetArguments, server: FrontEndAlone[LearnerAlone], fleet: Fleet) -> Json:
    """Returns updates per second with traffic against without, in turn."""
    ratios, cpu_ratios = [], []
    for number in range(arguments.num_windows + 1):
        server.learner.begin()
        time.sleep(arguments.window_s / 2)
        idle = server.learner.end()
        server.learner.begin()
        fleet.send(arguments.learner_rate, arguments.window_s / 2)
        busy = server.learner.end()
        if number:  # the first round warms up
            ratios.append(statistics.fmean(idle.wall_ms) / statistics.fmean(busy.wall_ms))
            cpu_ratios.append(statistics.fmean(idle.cpu_ms) / statistics.fmean(busy.cpu_ms))
    return {
        "messages_per_s": arguments.learner_rate,
        "ratio_wall": statistics.median(ratios),
        "ratio_cpu": statistics.median(cpu_ratios),
        "ratios_wall": ratios,
        "idle_update_ms": statistics.fmean(idle.wall_ms),
    }


@contextlib.contextmanager
def _looking(server: FrontEndAlone[LearnerAlone]) -> Iterator[Json]:
    """A context in which a thread looks at the server as people and Prometheus do."""
    looks: Json = {}
    thread = threading.Thread(target=_look, args=(server, looks), name="looking")
    thread.start()
    try:
        yield looks
    finally:
        thread.join()


def _look(server: FrontEndAlone[LearnerAlone], looks: Json) -> None:
    admin = [sys.executable, "-m", "impala_actor.admin_cli", "--run", str(server.run_path)]
    for name, words in (
        ("actors", ["actors"]),
        ("all_actors", ["actors", "--limit", "0"]),
        ("filtered_actors", ["actors", "--text", "fleet-1-7", "--connected"]),
        ("status", ["status"]),
    ):
        start_s = time.monotonic()
        done = subprocess.run(
            [*admin, *words], capture_output=True, text=True, check=False, timeout=120
        )
        lines = done.stdout.splitlines()
        looks[name] = {
            "code": done.returncode,
            "seconds": round(time.monotonic() - start_s, 2),
            "lines": len(lines),
            "last_line": lines[-1].strip() if lines else done.stderr[-300:],
        }
    start_s = time.monotonic()
    with urllib.request.urlopen(f"http://{server.prometheus_address}/metrics", timeout=60) as page:
        text = page.read().decode()
    looks["prometheus"] = {
        "seconds": round(time.monotonic() - start_s, 3),
        "bytes": len(text),
        "series": sum(not line.startswith("#") for line in text.splitlines()),
        "names_of_actors": text.count("fleet-"),
    }


if __name__ == "__main__":
    main()
