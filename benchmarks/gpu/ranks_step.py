"""Two learner ranks on one device, over gloo: their updates must be those of one learner.

Each rank is a process with half of every batch; a third process, without ranks, has all of it.
NCCL needs a device for each rank, so that it is not tried here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.gpu.step import Emit, StepSettings
from benchmarks.rigs.update_alone import ATARI, UpdateNetwork, make_batch
from benchmarks.suite.section import Json
from impala_common.config import (
    JobConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    TrainConfig,
)
from impala_server.learner.batch_loader import Batch
from impala_server.learner.parts import map_columns
from impala_server.learner.training_state import TrainingState
from impala_server.ranks.exchange import TorchExchange
from impala_server.ranks.group import RankGroup

_TOLERANCE = 1e-4
"""Of weights: convolutions of half a batch may be summed in another order than of a whole one."""
_NUM_UPDATES = 20


def compare_ranks(settings: StepSettings, emit: Emit) -> None:
    """Emits how far two ranks are from one learner, and what their meetings take."""
    with tempfile.TemporaryDirectory() as folder:
        told = {"device": settings.device, "folder": folder, "is_short": settings.is_rehearsal}
        command = [sys.executable, "-m", "benchmarks.gpu.ranks_step"]
        processes = [
            subprocess.Popen([*command, json.dumps({**told, "rank": rank})]) for rank in (0, 1, -1)
        ]
        try:
            codes = [process.wait(settings.limit_s) for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(codes):
            raise SystemExit(f"the processes of ranks ended with {codes}")
        emit(_compare(Path(folder)))


def _compare(folder: Path) -> Json:
    weights = {}
    for rank in (0, 1, -1):
        with np.load(folder / f"weights{rank}.npz", allow_pickle=False) as arrays:
            weights[rank] = {name: arrays[name] for name in arrays.files}
    facts: Json = json.loads((folder / "facts0.json").read_text())

    def furthest(one: int, other: int) -> float:
        return max(
            float(np.abs(array - weights[other][name]).max())
            for name, array in weights[one].items()
        )

    to_one = furthest(0, -1)
    return {
        **facts,
        "difference_to_one_learner": to_one,
        "difference_between_ranks": furthest(0, 1),
        "is_right": to_one <= _TOLERANCE and furthest(0, 1) == 0.0,
        "tolerance": _TOLERANCE,
    }


def _train(device: str, folder: Path, rank: int, is_short: bool) -> None:
    """Makes the updates of one process; rank -1 is the learner without ranks."""
    exchange, group = None, None
    if rank >= 0:
        stores: Any = dist  # Any: torch's stubs leave out stores
        group = RankGroup(stores.FileStore(str(folder / "meeting"), 2), rank, 2, 100.0)
        exchange = TorchExchange(group)
    batch_size, unroll_length, num_updates = (2, 3, 2) if is_short else (16, 20, _NUM_UPDATES)
    config = TrainConfig(
        job=JobConfig(device=device, precision="float32", total_steps=10**9),
        model=ModelConfig(model="nature_cnn"),
        # Of Adam, a difference in the last bit of a tiny gradient would be a whole step.
        optimizer=OptimizerConfig(optimizer="rmsprop", learning_rate=1e-4, eps=0.01),
        rollout=RolloutConfig(unroll_length=unroll_length, batch_size=batch_size),
    )
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    state = TrainingState(config, ATARI, None, exchange)
    network = UpdateNetwork(
        name="ranks",
        model="nature_cnn",
        environment=ATARI,
        unroll_length=unroll_length,
        batch_size=2 * batch_size,
    )
    whole = make_batch(network, device)
    batch = whole if rank < 0 else _take_half(whole, rank, batch_size)
    start_s = time.perf_counter()
    for _ in range(num_updates):
        if not state.apply(batch).is_applied:
            raise SystemExit("an update was not applied")
    passed_s = time.perf_counter() - start_s
    arrays = {name: tensor.cpu().numpy() for name, tensor in state.model.state_dict().items()}
    np.savez(folder / f"weights{rank}.npz", **arrays)
    if group is not None:
        facts = {
            "num_updates": num_updates,
            "update_ms": 1e3 * passed_s / num_updates,
            "exchange_ms": 1e3 * group.seconds / num_updates,
            "bytes_per_update": group.num_bytes // num_updates,
        }
        (folder / f"facts{rank}.json").write_text(json.dumps(facts))


def _take_half(batch: Batch, rank: int, size: int) -> Batch:
    columns = slice(rank * size, (rank + 1) * size)
    half = map_columns(batch, lambda leaf: leaf[:, columns])
    return half._replace(
        policy_versions=batch.policy_versions[columns], num_steps=batch.num_steps // 2
    )


def main() -> None:
    """Body of one process."""
    told = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    _train(told["device"], Path(told["folder"]), told["rank"], told["is_short"])


if __name__ == "__main__":
    main()
