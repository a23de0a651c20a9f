"""What checkpoints cost the update loop: `python -m benchmarks.studies.checkpoint_cost`.

The promise is 1 % of throughput at 50 MB of weights. A learner updates an MLP of that
size from one batch, over and over, without actors, in windows with a save each
`interval_s` and windows without, turn and turn about, so that whatever drifts on the
machine drifts in both. RMSProp's averages are saved too: 100 MB in all. What a save
takes of the second core shows where all cores are busy (`--torch-threads`).
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.suite.machine import save
from impala_common.config import ModelConfig, RolloutConfig, TrainConfig
from impala_common.models.contract import ModelInputs
from impala_common.run.checkpoints import CheckpointStore
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.checkpoint_writer import CheckpointWriter
from impala_server.learner.host_buffers import HostBuffers
from impala_server.learner.learner import Learner
from impala_server.learner.storage_source import StorageSource
from impala_server.learner.training_state import StateSnapshot, TrainingState
from impala_server.storage.handoff import ActorSeconds
from impala_server.storage.process_ends import STORAGE, WEIGHTS, make_ends

_PROMISE = 0.01
_ENVIRONMENT = EnvironmentSpec(
    (TensorSpec("observation", (64,), "float32"),), ActionSpec.discrete(6)
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostArguments:
    """Measures updates with and without checkpoints."""

    width: int = 2450
    """Width of the four hidden layers (two of the policy, two of the value): 50 MB of weights."""
    unroll_length: int = 5
    """T of the batch."""
    batch_size: int = 8
    """B of the batch."""
    interval_s: float = 5.0
    """Seconds between two saves."""
    window_s: float = 30.0
    """Seconds of each window."""
    num_windows: int = 4
    """Windows of each kind."""
    torch_threads: int = 1
    """CPU threads of the learner."""
    name: str = "checkpoint_cost"
    """Name of the result file; empty: not written."""


@dataclasses.dataclass(frozen=True)
class Window:
    """What one window took.

    Attributes:
      update_ms: of every update, from the end of the one before to its own.
      num_saves: checkpoints that became durable.
    """

    update_ms: np.ndarray
    num_saves: int


class Bench:
    """A learner, a batch for it, and its checkpoint thread."""

    def __init__(self, arguments: CostArguments, path: Path) -> None:
        """Builds all of it; checkpoints go to `path`."""
        config = TrainConfig(
            model=ModelConfig(model="mlp", hidden_sizes=(arguments.width, arguments.width)),
            rollout=RolloutConfig(
                unroll_length=arguments.unroll_length,
                batch_size=arguments.batch_size,
                num_storages=arguments.batch_size,
            ),
        )
        config = dataclasses.replace(
            config, job=dataclasses.replace(config.job, total_steps=1_000_000_000_000)
        )
        state = TrainingState(config, _ENVIRONMENT, None)
        self._ends = make_ends()[0]["learner"]
        blocks, queue = self._ends.blocks, BatchQueue(self._ends.handoffs["front_end"])
        self.learner = Learner(state, StorageSource(state, blocks[STORAGE], queue), blocks[WEIGHTS])
        batch = _make_batch(arguments.unroll_length, arguments.batch_size)
        self._taken = TakenBatch(batch, 0, [], ActorSeconds(0.0, 0.0, 0.0))
        self._buffers = HostBuffers()
        self.snapshot_s: list[float] = []
        self.save_s: list[float] = []
        self.writer = CheckpointWriter(
            CheckpointStore(path),
            self._take_snapshot,
            self._note,
        )
        self._begun_s = 0.0

    @property
    def num_weight_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(
            value.numel() * value.element_size()
            for value in self.learner.state.model.state_dict().values()
        )

    def run(self, window_s: float, interval_s: float | None) -> Window:
        """Updates for `window_s`, with a save each `interval_s`."""
        num_before = len(self.save_s)
        now_s = start_s = time.perf_counter()
        due_s = start_s
        took_ms = []
        while now_s - start_s < window_s:
            if interval_s is not None and now_s >= due_s:
                self.writer.request()
                due_s += interval_s
            self.learner.train(self._taken)
            before_s, now_s = now_s, time.perf_counter()
            took_ms.append(1e3 * (now_s - before_s))
        if interval_s is not None:
            self.writer.request().wait()  # none goes on into the next window
        return Window(np.array(took_ms), len(self.save_s) - num_before)

    def _take_snapshot(self) -> StateSnapshot:
        begun_s = time.perf_counter()
        snapshot = self.learner.export(self._buffers)
        self.snapshot_s.append(time.perf_counter() - begun_s)
        return snapshot

    def _note(self, event: str, **unused_fields: object) -> None:
        if event == "checkpoint_begin":
            self._begun_s = time.perf_counter()
        elif event == "checkpoint_commit":
            self.save_s.append(time.perf_counter() - self._begun_s)


def _make_batch(unroll_length: int, batch_size: int) -> Batch:
    random = np.random.default_rng(1)
    rows = (unroll_length, batch_size)
    observations = random.normal(size=(unroll_length + 1, batch_size, 64)).astype(np.float32)
    inputs = ModelInputs(
        {"observation": torch.from_numpy(observations)},
        torch.zeros(unroll_length + 1, batch_size, dtype=torch.bool),
        torch.zeros(unroll_length + 1, batch_size, dtype=torch.int64),
        torch.zeros(unroll_length + 1, batch_size),
    )
    return Batch(
        inputs=inputs,
        initial_agent_state=(),
        actions=torch.zeros(rows, dtype=torch.int64),
        behaviour_policy_logits=torch.zeros(*rows, 6),
        rewards=torch.from_numpy(random.normal(size=rows).astype(np.float32)),
        terminated=torch.zeros(rows, dtype=torch.bool),
        is_padding=torch.zeros(rows, dtype=torch.bool),
        policy_versions=np.zeros(batch_size, np.int64),
        num_steps=unroll_length * batch_size,
    )


def main() -> None:
    """Runs it and prints the figures."""
    arguments = tyro.cli(CostArguments, prog="python -m benchmarks.studies.checkpoint_cost")
    torch.set_num_threads(arguments.torch_threads)
    windows: dict[str, list[Window]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory(dir=".") as folder:  # on a disk: /tmp may be memory
        bench = Bench(arguments, Path(folder))
        bench.writer.start()
        try:
            bench.writer.request().wait()
            bench.run(min(5.0, arguments.window_s), None)  # warm-up
            for _ in range(arguments.num_windows):
                windows["without"].append(bench.run(arguments.window_s, None))
                windows["with"].append(bench.run(arguments.window_s, arguments.interval_s))
        finally:
            bench.writer.close(60.0)
    result = {
        "command": "python -m benchmarks.studies.checkpoint_cost",
        "weights_mb": round(bench.num_weight_bytes / 1e6, 1),
        "interval_s": arguments.interval_s,
        **_summarise(windows),
        "wait_and_copy_ms_median": round(1e3 * float(np.median(bench.snapshot_s[1:])), 1),
        "save_s_median": round(float(np.median(bench.save_s)), 2),
        "saves_failed": bench.writer.num_failures,
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    if arguments.name:
        print(save(arguments.name, result))


def _summarise(windows: dict[str, list[Window]]) -> dict[str, object]:
    summary: dict[str, object] = {}
    rates = {}
    for kind, several in windows.items():
        took_ms = np.concatenate([window.update_ms for window in several])
        rates[kind] = [1e3 / float(window.update_ms.mean()) for window in several]
        summary[kind] = {
            "updates": len(took_ms),
            "saves": sum(window.num_saves for window in several),
            "updates_per_s": [round(rate, 3) for rate in rates[kind]],
            "update_ms_p50": round(float(np.percentile(took_ms, 50)), 1),
            "update_ms_p99": round(float(np.percentile(took_ms, 99)), 1),
            "update_ms_max": round(float(took_ms.max()), 1),
        }
    ratios = [w / without for w, without in zip(rates["with"], rates["without"], strict=True)]
    cost = 1.0 - float(np.median(ratios))
    return summary | {"cost_of_throughput": round(cost, 4), "is_kept": cost <= _PROMISE}


if __name__ == "__main__":
    main()
