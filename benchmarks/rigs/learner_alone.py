"""The product's own learner in a process of its own, which updates from one batch over and over.

It holds the learner's ends of the pipes: a thread gives full slots back at once, so that any
amount of traffic can go through the front end beside it, and weights are published after each
update as always. What it is slowed down by is then traffic alone. `LearnerAlone` is the
benchmark's side.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.rigs.worker_process import WorkerProcess, serve
from benchmarks.suite.section import Json
from impala_common.config.toml_io import load_config
from impala_common.errors import QueueClosedError
from impala_common.models.weights import weights_specs
from impala_common.run.run_directory import RunDirectory
from impala_common.spec.specs import EnvironmentSpec
from impala_server.learner.batch_loader import Batch, BatchLoader
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.learner import Learner
from impala_server.learner.storage_source import StorageSource
from impala_server.learner.training_state import TrainingState
from impala_server.messages import Define, Ready
from impala_server.storage.handoff import ActorSeconds
from impala_server.storage.layout import StorageLayout
from impala_server.storage.process_ends import STORAGE, WEIGHTS, ProcessEnds

_MODULE = "benchmarks.rigs.learner_alone"
_POLL_S = 0.2


class Updates(NamedTuple):
    """Updates of one window.

    Attributes:
      wall_ms: of each update, from the end of the one before to its own.
      cpu_ms: CPU milliseconds of the updating thread in that time.
    """

    wall_ms: list[float]
    cpu_ms: list[float]


class LearnerAlone:
    """A learner process; ended by `close`."""

    def __init__(self, ends: ProcessEnds, run_path: Path, cores: list[int] | None) -> None:
        """Starts it; it takes over `ends`."""
        settings = {"run_path": str(run_path), "ends": ends.to_argument()}
        self._worker = WorkerProcess(_MODULE, settings, pass_fds=ends.fds, cores=cores)
        ends.close_pipes()

    def begin(self) -> None:
        """Begins a window of updates."""
        self._worker.ask("begin")

    def end(self) -> Updates:
        """Ends it and returns its updates."""
        answer = self._worker.ask("end")
        return Updates(answer["wall_ms"], answer["cpu_ms"])

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()


class _Process:
    """The learner's process."""

    def __init__(self, run_path: str, ends: ProcessEnds) -> None:
        self._ends = ends
        self._config = load_config(RunDirectory(run_path).config_path)
        self._is_closing = False
        self._learner: Learner | None = None
        self._is_updating = threading.Event()
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._updates = Updates([], [])
        self._num_refused = 0
        self._threads = [
            threading.Thread(target=self._free_slots),
            threading.Thread(target=self._answer_front_end),
        ]
        for thread in self._threads:
            thread.start()

    def answer(self, request: Json) -> Json:
        """Begins or ends a window."""
        if request["kind"] == "begin":
            assert self._learner is not None, "no actor has registered yet"
            self._updates = Updates([], [])
            self._is_updating.set()
            return {}
        self._is_updating.clear()
        self._is_idle.wait()
        if self._num_refused:
            raise SystemExit(
                f"{self._num_refused} batches were not trained on: nothing was measured"
            )
        return self._updates._asdict()

    def close(self) -> None:
        """Ends all threads."""
        self._is_closing = True
        self._is_updating.set()
        for thread in self._threads:
            thread.join()
        self._ends.close_pipes()

    def _free_slots(self) -> None:
        handoff = self._ends.handoffs["front_end"]
        try:
            while not self._is_closing:
                handoff.frames.flush()
                full = handoff.receive_full(_POLL_S)
                if full is not None:
                    handoff.send_free(full.slot)
        except QueueClosedError:
            return

    def _answer_front_end(self) -> None:
        try:
            while not self._is_closing:
                message = self._ends.controls["front_end"].receive(_POLL_S)
                if isinstance(message, Define):
                    self._build(message.environment)
        except QueueClosedError:
            return

    def _build(self, environment: EnvironmentSpec) -> None:
        config, blocks = self._config, self._ends.blocks
        state = TrainingState(config, environment, None)
        queue = BatchQueue(self._ends.handoffs["front_end"])
        learner = Learner(state, StorageSource(state, blocks[STORAGE], queue), blocks[WEIGHTS])
        rollout = config.rollout
        layout = StorageLayout(state.unroll_spec, rollout.batch_size, rollout.num_storage_slots)
        loader = BatchLoader(layout, blocks[STORAGE].map(), state.model_spec, state.device)
        random = np.random.default_rng(1)
        for view in layout.make_views(blocks[STORAGE].map())[0].values():
            if view.dtype == np.float32:
                view[...] = random.standard_normal(view.shape)
        batch = copy.deepcopy(loader.load(0))  # the front end will write to the slot
        self._learner = learner
        self._threads.append(threading.Thread(target=self._update, args=(learner, batch)))
        self._threads[-1].start()
        ready = Ready(
            learner_run_id=learner.run_id,
            learner_life=0,
            environment=environment,
            model=state.model_spec,
            agent_state=tuple(state.model.agent_state_specs()),
            weights=tuple(weights_specs(state.model)),
            max_policy_lag=0,
        )
        self._ends.controls["front_end"].send(ready)

    def _update(self, learner: Learner, batch: Batch) -> None:
        taken = TakenBatch(batch, 0, [], ActorSeconds(0.0, 0.0, 0.0))
        while True:
            self._is_updating.wait()
            if self._is_closing:
                return
            self._is_idle.clear()
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            while self._is_updating.is_set() and not self._is_closing:
                is_trained = learner.train(taken)
                self._num_refused += not is_trained
                before, wall_s, cpu_s = (wall_s, cpu_s), time.perf_counter(), time.thread_time()
                self._updates.wall_ms.append(1e3 * (wall_s - before[0]))
                self._updates.cpu_ms.append(1e3 * (cpu_s - before[1]))
            self._is_idle.set()


def main() -> None:
    """Body of the process."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    process = _Process(settings["run_path"], ProcessEnds.from_argument(settings["ends"]))
    try:
        serve(process.answer)
    finally:
        process.close()


if __name__ == "__main__":
    main()
