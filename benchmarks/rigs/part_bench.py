"""One case's product classes on a bench: each part of an agent step, run alone.

parts.py starts `python -m benchmarks.rigs.part_bench` once per case: a process of its own, with one
torch thread, as an actor has. A part works on what was really played: unrolls that were recorded
when the bench was built.

    environment  vector environment, random actions
    inference    Policy: new weights, then T steps in all slots
    build        UnrollBuilder: rows side by side
    encode       pack_unrolls and the message's bytes
    decode       the message, checked, as arrays
    store        BatchSlots.write into rollout storage
    load         BatchLoader: tensors of a full slot
    update       Learner.train: one update, weights published
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.suite.cases import Case
from benchmarks.suite.section import Json, summarise
from impala_actor.acting.unroll_builder import UnrollBuilder
from impala_actor.environments.adapter import StepResult
from impala_actor.environments.factory import make_environment
from impala_common.codec.unrolls import UnrollDecoder, pack_unrolls
from impala_common.config import TrainConfig
from impala_common.models.registry import make_model
from impala_common.policy.inference.selection import make_inference
from impala_common.policy.policy import Policy, PolicyStep
from impala_rl.v1 import unroll_pb2
from impala_server.learner.batch_loader import BatchLoader
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.learner import Learner
from impala_server.learner.storage_source import StorageSource
from impala_server.learner.training_state import TrainingState
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.handoff import ActorSeconds
from impala_server.storage.layout import StorageLayout, UnrollOrigin
from impala_server.storage.process_ends import STORAGE, WEIGHTS, make_ends

# Weights stay as they began, so that every update is as expensive as the first.
_STILL = ("--learning-rate", "1e-12")
_NO_ORIGIN = UnrollOrigin(0, 0, 0)


class PartBench:
    """Everything an agent step goes through, in one process, each part callable alone.

    Attributes:
      parts: name -> a function that runs the part once and returns the agent steps it worked on.
      config: the settings.
      num_slots: environment slots, as one actor has.
      inference_name: of the backend that an actor would choose.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Builds all parts and records unrolls, a batch at least."""
        self.config = config
        self._environment = make_environment(
            config.environment.env, config.environment.envs_per_actor, config.environment
        )
        environment = self._environment.spec
        self.num_slots = self._environment.num_slots
        self._ends = make_ends()[0]["learner"]
        storage = self._ends.blocks[STORAGE]
        state = TrainingState(config, environment, None)
        source = StorageSource(state, storage, BatchQueue(self._ends.handoffs["front_end"]))
        self._learner = Learner(state, source, self._ends.blocks[WEIGHTS])
        unroll_length = config.rollout.unroll_length
        self._spec = state.unroll_spec
        layout = StorageLayout(
            self._spec, config.rollout.batch_size, config.rollout.num_storage_slots
        )
        self._slots = BatchSlots(layout, storage.map())
        self._loader = BatchLoader(layout, storage.map(), state.model_spec, state.device)
        model = make_model(state.model_spec, environment, seed=0)
        inference = make_inference(
            config.job.inference_backend, model, environment, self.num_slots, unroll_length
        )
        self.inference_name = inference.name
        self._policy = Policy(model, environment.action, self.num_slots, 1, inference)
        self._weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        self._builder = UnrollBuilder(self._spec, self.num_slots)
        self._decoder = UnrollDecoder(self._spec, self.num_slots)
        self._random = np.random.default_rng(1)
        self._result = self._first_result()
        self._rows: list[tuple[StepResult, PolicyStep, StepResult]] = []
        self._messages: list[bytes] = []
        self._batches: list[int] = []
        self._record()
        self._turn = 0
        self.parts: dict[str, Callable[[], int]] = {
            "environment": self._step_environment,
            "inference": self._infer,
            "build": self._build,
            "encode": self._encode,
            "decode": self._decode,
            "store": self._store,
            "load": self._load,
            "update": self._update,
        }

    def close(self) -> None:
        """Frees the environment."""
        self._environment.close()

    @property
    def message_bytes_per_step(self) -> float:
        """Bytes on the wire for an agent step."""
        num_steps = len(self._messages) * self.num_slots * self._spec.unroll_length
        return sum(map(len, self._messages)) / num_steps

    @property
    def num_skipped_updates(self) -> int:
        """Updates that were not applied; a bench with any measured something else."""
        return self._learner.state.counters.skipped_updates

    def _first_result(self) -> StepResult:
        no, yes = np.zeros(self.num_slots, np.bool_), np.ones(self.num_slots, np.bool_)
        rewards = np.zeros(self.num_slots, np.float32)
        return StepResult(self._environment.reset(1), rewards, no, no, no, yes)

    def _record(self) -> None:
        """Plays until every batch slot is full; keeps the last unrolls' rows and all messages."""
        while self._slots.has_room():
            self._rows = []
            self._begin(self._result)
            while not self._builder.is_complete:
                before = _copy(self._result)
                decision = self._policy.act(before.observations, before.is_first)
                self._result = self._environment.step(decision.actions)
                self._builder.add(decision, self._result)
                self._policy.observe(self._result.rewards, self._result.is_first)
                self._rows.append((before, decision, _copy(self._result)))
            message = pack_unrolls(self._builder.unrolls, self._spec, compress=True)
            self._messages.append(message.SerializeToString())
            decoded = self._decoder.decode(message)
            first = 0
            while first < self.num_slots and self._slots.has_room():
                count, full = self._slots.write(decoded, first, 0, _NO_ORIGIN)
                first += count
                if full is not None:
                    self._batches.append(full)
        self._decoded = decoded

    def _begin(self, result: StepResult) -> None:
        policy = self._policy
        self._builder.begin(
            result.observations,
            result.is_first,
            policy.agent_state,
            policy.previous_action,
            policy.previous_reward,
        )

    def _step_environment(self) -> int:
        num_actions = self._environment.spec.action.num_logits
        actions = self._random.integers(0, num_actions, self.num_slots)
        self._result = self._environment.step(actions)
        return self.num_slots - int(np.count_nonzero(self._result.is_padding))

    def _infer(self) -> int:
        self._policy.load(self._weights)
        for before, _, after in self._rows:
            self._policy.act(before.observations, before.is_first)
            self._policy.observe(after.rewards, after.is_first)
        return len(self._rows) * self.num_slots

    def _build(self) -> int:
        self._begin(self._rows[0][0])
        for _, decision, after in self._rows:
            self._builder.add(decision, after)
        return len(self._rows) * self.num_slots

    def _encode(self) -> int:
        pack_unrolls(self._builder.unrolls, self._spec, compress=True).SerializeToString()
        return self._spec.unroll_length * self.num_slots

    def _decode(self) -> int:
        self._turn += 1
        message = unroll_pb2.UnrollBatch()
        message.ParseFromString(self._messages[self._turn % len(self._messages)])
        self._decoder.decode(message)
        return self._spec.unroll_length * self.num_slots

    def _store(self) -> int:
        if not self._slots.has_room():
            for slot in self._batches:
                self._slots.release(slot)
        count, _ = self._slots.write(self._decoded, 0, 0, _NO_ORIGIN)
        return self._spec.unroll_length * count

    def _load(self) -> int:
        self._turn += 1
        return self._loader.load(self._batches[self._turn % len(self._batches)]).num_steps

    def _update(self) -> int:
        self._turn += 1
        slot = self._batches[self._turn % len(self._batches)]
        batch = self._loader.load(slot)
        self._learner.train(TakenBatch(batch, slot, [], ActorSeconds(0.0, 0.0, 0.0)))
        return batch.num_steps


def _copy(result: StepResult) -> StepResult:
    """Returns arrays that the environment does not use again."""
    return StepResult(
        observations={name: leaf.copy() for name, leaf in result.observations.items()},
        rewards=result.rewards.copy(),
        terminated=result.terminated.copy(),
        truncated=result.truncated.copy(),
        is_padding=result.is_padding.copy(),
        is_first=result.is_first.copy(),
    )


def measure_parts(bench: PartBench, num_windows: int, window_s: float) -> Json:
    """Runs every part for `window_s`, in turn, `num_windows` times; microseconds per agent step.

    `update` holds no `load`, which it needs: what loading took in the same round is taken off.
    """
    cpu: dict[str, list[float]] = {name: [] for name in bench.parts}
    wall: dict[str, list[float]] = {name: [] for name in bench.parts}
    for run in bench.parts.values():
        run()  # allocations, caches
    for _ in range(num_windows):
        for name, run in bench.parts.items():
            cpu_us, wall_us = _measure_window(run, window_s)
            cpu[name].append(cpu_us)
            wall[name].append(wall_us)
        cpu["update"][-1] -= cpu["load"][-1]
        wall["update"][-1] -= wall["load"][-1]
    if bench.num_skipped_updates:
        raise SystemExit(f"{bench.num_skipped_updates} updates were skipped: no figures")
    return {
        "num_slots": bench.num_slots,
        "inference": bench.inference_name,
        "unroll_length": bench.config.rollout.unroll_length,
        "batch_size": bench.config.rollout.batch_size,
        "wire_bytes_per_step": round(bench.message_bytes_per_step, 1),
        "cpu_us": {name: summarise(values) for name, values in cpu.items()},
        "wall_us": {name: summarise(values) for name, values in wall.items()},
    }


def _measure_window(run: Callable[[], int], window_s: float) -> tuple[float, float]:
    """Returns CPU and wall microseconds per agent step over at least `window_s`."""
    num_steps = 0
    start_s, cpu_start_s = time.perf_counter(), time.process_time()
    while (passed_s := time.perf_counter() - start_s) < window_s or not num_steps:
        num_steps += run()
    cpu_s = time.process_time() - cpu_start_s
    return 1e6 * cpu_s / num_steps, 1e6 * passed_s / num_steps


def main() -> None:
    """Reads a case and how long to measure it as JSON from stdin; prints the result as JSON."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    bench = PartBench(Case(**asked["case"]).make_config("--device", "cpu", *_STILL))
    try:
        result = measure_parts(bench, asked["num_windows"], asked["window_s"])
    finally:
        bench.close()
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
