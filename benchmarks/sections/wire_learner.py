"""A learner beside traffic: how much slower its updates are than without.

Used by the section `wire`. The learner has a core for itself, where there are two; the front
end, the actors and the clients have the others. Idle and busy windows are taken in turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.rigs.front_end_alone import FrontEndAlone, make_config
from benchmarks.rigs.learner_alone import LearnerAlone, Updates
from benchmarks.rigs.synthetic_actors import SyntheticActors
from benchmarks.rigs.unroll_source import UnrollSource
from benchmarks.rigs.weights_clients import WeightsClients
from benchmarks.rigs.worker_process import pin
from benchmarks.sections.wire_weights import ENVIRONMENT
from benchmarks.suite.section import Json, summarise
from impala_common.config import ModelConfig, TrainConfig

_WARM_UP_S = 0.5


class Cores(NamedTuple):
    """Who runs where."""

    learner: list[int]
    others: list[int]


def measure_beside_ingest(
    source: UnrollSource, batch_size: int, num_streams: int, num_windows: int, window_s: float
) -> Json:
    """Returns updates beside saturated ingest of `source` against updates without traffic."""
    config = make_config(source.spec.unroll_length, batch_size)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source.save(folder)
        server, cores = _serve(stack, config)
        actors = stack.enter_context(
            SyntheticActors(
                server.address, folder, num_streams, packs_each=False, cores=cores.others
            )
        )
        num_unrolls = []

        def busy() -> None:
            with actors.at_work(_WARM_UP_S):
                before = actors.totals().num_unrolls
                time.sleep(window_s)
                num_unrolls.append(actors.totals().num_unrolls - before)

        result = _compare(server.learner, busy, window_s, num_windows)
    result["unrolls_per_s"] = statistics.median(num_unrolls) / window_s
    return result | {"streams": num_streams, "unroll_bytes": source.spec.num_bytes}


def measure_beside_fetching(
    num_clients: int, width: int, num_windows: int, window_s: float
) -> Json:
    """Returns updates while `num_clients` fetch large weights at once, against none fetching.

    Args:
      num_clients: connections.
      width: of the network's two hidden layers; 2,240 has 40 MB.
      num_windows: windows of each kind.
      window_s: seconds of an idle window; a busy one takes as long as the clients do.
    """
    model = ModelConfig(model="mlp", hidden_sizes=(width, width))
    config = dataclasses.replace(make_config(5, 4), model=model)
    with contextlib.ExitStack() as stack:
        server, cores = _serve(stack, config)
        clients = stack.enter_context(
            WeightsClients(
                server.address, ENVIRONMENT.to_json(), num_clients, 4, cores=cores.others
            )
        )
        walls = []
        result = _compare(
            server.learner, lambda: walls.append(clients.fetch().wall_s), window_s, num_windows
        )
    return result | {"clients": num_clients, "fetch_s": summarise(walls)}


def _serve(
    stack: contextlib.ExitStack, config: TrainConfig
) -> tuple[FrontEndAlone[LearnerAlone], Cores]:
    """Starts a learner and a front end, each on its cores."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    cores = Cores(allowed[:1], allowed[1:] or allowed)
    server = stack.enter_context(
        FrontEndAlone(config, lambda ends, path: LearnerAlone(ends, path, cores.learner))
    )
    pin(server.process, cores.others)
    return server, cores


def _compare(
    learner: LearnerAlone, busy: Callable[[], None], window_s: float, num_windows: int
) -> Json:
    """Measures windows without and with what `busy` does."""
    windows: dict[str, list[Updates]] = {"idle": [], "busy": []}
    doing = {"idle": lambda: time.sleep(window_s), "busy": busy}
    for number in range(num_windows + 1):  # the first round warms up
        for kind, do in doing.items():
            learner.begin()
            do()
            updates = learner.end()
            if number:
                windows[kind].append(updates)
    per_s = {kind: [_rate(w.wall_ms) for w in several] for kind, several in windows.items()}
    per_cpu_s = {kind: [_rate(w.cpu_ms) for w in several] for kind, several in windows.items()}
    return {
        "updates": {kind: sum(len(w.wall_ms) for w in windows[kind]) for kind in windows},
        "idle_updates_per_s": summarise(per_s["idle"]),
        "busy_updates_per_s": summarise(per_s["busy"]),
        "ratio_wall": summarise(_ratios(per_s)),
        "ratio_cpu": summarise(_ratios(per_cpu_s)),
        "p99_ratio_wall": _p99_ratio(windows, "wall_ms"),
        "p99_ratio_cpu": _p99_ratio(windows, "cpu_ms"),
    }


def _rate(took_ms: list[float]) -> float:
    return 1e3 / statistics.fmean(took_ms)


def _ratios(rates: dict[str, list[float]]) -> list[float]:
    return [busy / idle for busy, idle in zip(rates["busy"], rates["idle"], strict=True)]


def _p99_ratio(windows: dict[str, list[Updates]], field: str) -> float:
    """Returns the p99 of all busy updates over that of all idle ones."""
    p99 = {
        kind: np.percentile(np.concatenate([getattr(w, field) for w in several]), 99)
        for kind, several in windows.items()
    }
    return float(p99["busy"] / p99["idle"])
