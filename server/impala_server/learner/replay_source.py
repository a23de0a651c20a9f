"""ReplaySource: batches of another source with older unrolls mixed in.

V-trace corrects the older unrolls like all others: each keeps the behaviour policy it was made with
(arXiv 1802.01561, section 5.2.2). They were taken into training before, so unrolls, agent steps and
running statistics do not count them again.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from impala_common.config.checks import require
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.batch_source import BatchSource, TakenBatch
from impala_server.learner.storage_source import StorageSource
from impala_server.learner.training_state import TrainingState
from impala_server.learner.unroll_ring import Places, UnrollRing, count_unroll_bytes
from impala_server.storage.shared_block import SharedBlock


class ReplaySource:
    """Wraps a BatchSource. Owns the ring of older unrolls; safe for any number of threads."""

    def __init__(self, source: BatchSource, state: TrainingState) -> None:
        """Holds no unrolls yet.

        Args:
          source: where fresh batches come from.
          state: its settings and specifications are read.

        Raises:
          ConfigError: the memory for older unrolls does not hold a batch of them.
        """
        config = state.config
        batch_size = config.rollout.batch_size
        self._source = source
        self._num_replayed = config.reuse.num_replayed(batch_size)
        unroll_bytes = count_unroll_bytes(state.unroll_spec)
        capacity = config.reuse.replay_capacity_bytes // unroll_bytes
        num_needed = max(batch_size, self._num_replayed)
        require(
            "replay_capacity_bytes",
            config.reuse.replay_capacity_bytes,
            capacity >= num_needed,
            f"at least {num_needed * unroll_bytes}: {num_needed} unrolls of {unroll_bytes} bytes",
            "there would be no room for the older unrolls of one batch",
        )
        self._lock = threading.Lock()
        self._ring = UnrollRing(capacity)
        self._places: dict[int, Places] = {}  # by slot, while a batch is taken
        self._random = np.random.default_rng([config.job.seed, state.counters.policy_version])

    def take(self) -> TakenBatch:
        """Returns the next fresh batch with older unrolls appended, as many as the ring has.

        Raises:
          QueueClosedError: see the other source.
        """
        taken = self._source.take()
        start_s = time.perf_counter()
        with self._lock:
            usable = self._ring.usable
            count = min(self._num_replayed, len(usable))
            chosen = self._random.choice(usable, count, replace=False)
            batch = self._ring.mix(taken.batch, chosen)
            added = self._ring.add(taken.batch)
            self._places[taken.slot] = np.concatenate([chosen, added])
        load_s = taken.load_s + time.perf_counter() - start_s
        return taken._replace(batch=batch, load_s=load_s)

    def has_waiting(self) -> bool:
        """Returns whether a fresh batch waits."""
        return self._source.has_waiting()

    def release(self, taken: TakenBatch, is_trained: bool) -> None:
        """Releases the fresh batch; if it was dropped, its unrolls leave the ring."""
        with self._lock:
            places = self._places.pop(taken.slot)
            if not is_trained:
                self._ring.forget(places)
        self._source.release(taken, is_trained)

    def forget_all(self) -> None:
        """Empties the ring."""
        with self._lock:
            self._ring.forget_all()

    def describe(self, taken: TakenBatch, has_rows: bool) -> list[list[Any]]:
        """Returns the origins of the fresh unrolls."""
        return self._source.describe(taken, has_rows)

    def close(self) -> None:
        """Closes the other source."""
        self._source.close()


def make_source(state: TrainingState, storage: SharedBlock, queue: BatchQueue) -> BatchSource:
    """Returns the source of batches that the settings ask for: storage, with or without replay."""
    source = StorageSource(state, storage, queue)
    return ReplaySource(source, state) if state.config.reuse.replay_ratio > 0.0 else source
