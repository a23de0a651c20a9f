"""What the exchange of learner ranks costs: `python -m benchmarks.studies.rank_exchange`.

Two ranks, one process each on one thread, update one network from one batch of random unrolls each,
over and over, with gloo on loopback. Per update: the bytes of gradients that a rank sends, the
seconds of the update, and those in which the rank met the other one, waiting for it included. The
same updates by one process without ranks, alone, are measured beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import tyro

from benchmarks.suite.machine import save
from impala_common.config import JobConfig, ModelConfig, RolloutConfig, TrainConfig
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
from impala_server.learner.batch_loader import Batch, BatchLoader
from impala_server.learner.gradient_exchange import BatchTotals
from impala_server.learner.training_state import TrainingState
from impala_server.ranks.exchange import TorchExchange
from impala_server.ranks.group import RankGroup
from impala_server.ranks.header import Header
from impala_server.storage.layout import StorageLayout

_VECTOR = EnvironmentSpec((TensorSpec("observation", (4,), "float32"),), ActionSpec.discrete(2))
_FRAMES = EnvironmentSpec(
    (TensorSpec("observation", (4, 84, 84), "uint8"),), ActionSpec.discrete(6)
)
_LEAST_UPDATES = 3
_NETWORKS = {
    "mlp": (ModelConfig(model="mlp"), _VECTOR),
    "nature_cnn": (ModelConfig(model="nature_cnn"), _FRAMES),
    "impala_resnet": (ModelConfig(model="impala_resnet"), _FRAMES),
}
_TIMEOUT_S = 120.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExchangeArguments:
    """Measures the exchange of two ranks."""

    networks: tuple[str, ...] = ("mlp", "nature_cnn", "impala_resnet")
    """Networks to measure."""
    unroll_length: int = 20
    """T of the batches."""
    batch_size: int = 32
    """B of a rank's batch."""
    window_s: float = 10.0
    """Seconds of updates of each network, with ranks and without; three updates at least."""
    name: str = "rank_exchange"
    """Name of the result file; empty: not written."""
    meeting: str = ""
    """File at which the second process meets the first; for it alone."""


def main() -> None:
    """Measures, prints and saves."""
    arguments = tyro.cli(ExchangeArguments)
    torch.set_num_threads(1)
    if arguments.meeting:
        for network in arguments.networks:
            _measure_rank(arguments, network, 1, arguments.meeting)
        return
    results: dict[str, Any] = {}
    for network in arguments.networks:
        alone_s = _measure_alone(arguments, network)
        meeting = str(Path(tempfile.gettempdir()) / f"rank-exchange-{secrets.token_hex(6)}")
        settings = ["--unroll-length", str(arguments.unroll_length)]
        settings += ["--batch-size", str(arguments.batch_size)]
        settings += ["--window-s", str(arguments.window_s), "--meeting", meeting]
        command = [sys.executable, "-m", "benchmarks.studies.rank_exchange", *settings]
        with subprocess.Popen([*command, "--networks", network]) as other:
            try:
                results[network] = _measure_rank(arguments, network, 0, meeting)
                other.wait(_TIMEOUT_S)
            finally:
                other.kill()
        results[network]["alone_update_ms"] = 1e3 * alone_s
        results[network]["load_average"] = round(os.getloadavg()[0], 2)
        sys.stdout.write(f"{network}: {json.dumps(results[network])}\n")
    if arguments.name:
        load = {"load_average": os.getloadavg()[0]}
        settings_used = {"T": arguments.unroll_length, "B per rank": arguments.batch_size}
        save(arguments.name, {"settings": settings_used, **load, "networks": results})


def _measure_alone(arguments: ExchangeArguments, network: str) -> float:
    """Returns the median seconds of an update without ranks."""
    state = _make_state(arguments, network, None)
    batch = _make_batch(state, arguments)
    taken: list[float] = []
    end_s = time.perf_counter() + arguments.window_s
    while time.perf_counter() < end_s or len(taken) < _LEAST_UPDATES:
        start_s = time.perf_counter()
        state.apply(batch)
        taken.append(time.perf_counter() - start_s)
    return statistics.median(taken[len(taken) // 5 :])


def _measure_rank(
    arguments: ExchangeArguments, network: str, rank: int, meeting: str
) -> dict[str, Any]:
    stores: Any = dist  # Any: torch's stubs leave out stores
    group = RankGroup(stores.FileStore(meeting, 2), rank, 2, _TIMEOUT_S)
    exchange = TorchExchange(group)
    state = _make_state(arguments, network, exchange)
    batch = _make_batch(state, arguments)
    state.apply(batch)  # the other process may have begun later
    update_s: list[float] = []
    exchange_s: list[float] = []
    begun_s = time.perf_counter()
    num_bytes = 0
    while True:
        met_s, start_s, num_before = group.seconds, time.perf_counter(), group.num_bytes
        is_over = start_s - begun_s > arguments.window_s and len(update_s) >= _LEAST_UPDATES
        header = Header(is_ready=1, stops=int(is_over), num_steps=batch.num_steps)
        headers = Header.from_rows(group.gather(header.to_row()))
        if any(one.stops for one in headers):
            break
        exchange.agreed = BatchTotals(sum(one.num_steps for one in headers), 2 * batch.num_unrolls)
        state.apply(batch)
        update_s.append(time.perf_counter() - start_s)
        exchange_s.append(group.seconds - met_s)
        num_bytes = group.num_bytes - num_before
    skipped = len(update_s) // 5
    whole_s, met = statistics.median(update_s[skipped:]), statistics.median(exchange_s[skipped:])
    return {
        "num_updates": len(update_s),
        "num_bytes": num_bytes,
        "update_ms": 1e3 * whole_s,
        "exchange_ms": 1e3 * met,
        "exchange_share": met / whole_s,
        "exchange_least_ms": 1e3 * min(exchange_s),
    }


def _make_state(
    arguments: ExchangeArguments, network: str, exchange: TorchExchange | None
) -> TrainingState:
    model, environment = _NETWORKS[network]
    config = TrainConfig(
        job=JobConfig(total_steps=10**12, device="cpu", precision="float32"),
        model=model,
        rollout=RolloutConfig(
            unroll_length=arguments.unroll_length, batch_size=arguments.batch_size
        ),
    )
    return TrainingState(config, environment, None, exchange)


def _make_batch(state: TrainingState, arguments: ExchangeArguments) -> Batch:
    layout = StorageLayout(state.unroll_spec, arguments.batch_size, 1)
    memory = memoryview(bytearray(layout.num_bytes))
    random = np.random.default_rng(1)
    for view in layout.make_views(memory)[0].values():
        if view.dtype == np.float32:
            view[...] = random.standard_normal(view.shape)
    return BatchLoader(layout, memory, state.model_spec, state.device).load(0)


if __name__ == "__main__":
    main()
