"""StorageSource: full slots of rollout storage as batches on the learner's device.

Learner threads take from it. `BatchQueue` gives each thread a slot; `BatchLoader` loads it while
another thread updates.
"""

from __future__ import annotations

import time
from typing import Any

from impala_server.learner.batch_loader import BatchLoader
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.training_state import TrainingState
from impala_server.storage.layout import StorageLayout
from impala_server.storage.memory_limit import require_fit
from impala_server.storage.shared_block import SharedBlock


class StorageSource:
    """The hand-off of full storage slots, as a BatchSource."""

    def __init__(self, state: TrainingState, storage: SharedBlock, queue: BatchQueue) -> None:
        """Gives `storage` its size and maps it; full slots come from `queue`.

        Raises:
          ConfigError: it would be larger than the memory.
        """
        rollout = state.config.rollout
        layout = StorageLayout(state.unroll_spec, rollout.batch_size, rollout.num_storage_slots)
        require_fit(layout.num_bytes, rollout.num_storages)
        storage.resize(layout.num_bytes)
        self._loader = BatchLoader(layout, storage.map(), state.model_spec, state.device)
        self._queue = queue

    def take(self) -> TakenBatch:
        """Returns the next full slot's batch, waiting for it.

        Raises:
          QueueClosedError: `close` was called, or the front end is gone.
        """
        start_s = time.perf_counter()
        full = self._queue.take()
        taken_s = time.perf_counter()
        batch = self._loader.load(full.slot)
        return TakenBatch(
            batch,
            full.slot,
            full.episodes,
            full.actor_seconds,
            wait_s=taken_s - start_s,
            load_s=time.perf_counter() - taken_s,
        )

    def has_waiting(self) -> bool:
        """Returns whether a full slot waits, or a learner thread has loaded the next batch."""
        return self._queue.has_waiting

    def release(self, taken: TakenBatch, is_trained: bool) -> None:
        """Frees the slot for new unrolls, and tells the front end the outcome of the old ones."""
        self._queue.give_back(taken.slot, is_trained)

    def forget_all(self) -> None:
        """Does nothing: every unroll is given out once."""

    def describe(self, taken: TakenBatch, has_rows: bool) -> list[list[Any]]:
        """Returns the origin of each unroll; see `BatchLoader.describe`."""
        return self._loader.describe(taken.slot, has_rows)

    def close(self) -> None:
        """Ends all `take` calls within a tenth of a second."""
        self._queue.close()
