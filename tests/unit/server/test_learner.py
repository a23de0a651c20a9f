"""The learner takes batches of any source, trains on each once or drops it, and publishes."""

from __future__ import annotations

from typing import Any

import pytest
from running_server import make_config
from update_batches import VECTOR, make_batches

from impala_common.errors import QueueClosedError
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.learner import Learner
from impala_server.learner.learner_thread import LearnerThread
from impala_server.learner.training_state import TrainingState
from impala_server.storage.handoff import ActorSeconds, FinishedEpisode
from impala_server.storage.shared_block import SharedBlock
from impala_server.storage.weights_block import WeightsReader


class ListSource:
    """Batches of a list, one after the other."""

    def __init__(self, num_batches: int) -> None:
        self._waiting = [
            TakenBatch(batch, slot, [FinishedEpisode(1.0, 5)], ActorSeconds(0.0, 0.0, 0.0))
            for slot, batch in enumerate(make_batches(num_batches))
        ]
        self.released: list[tuple[int, bool]] = []

    def take(self) -> TakenBatch:
        if not self._waiting:
            raise QueueClosedError("the list is at its end")
        return self._waiting.pop(0)

    def release(self, taken: TakenBatch, is_trained: bool) -> None:
        self.released.append((taken.slot, is_trained))

    def describe(self, taken: TakenBatch, has_rows: bool) -> list[list[Any]]:
        raise AssertionError("no history is kept")

    def close(self) -> None:
        self._waiting.clear()


@pytest.mark.timeout(10)
def test_thread_trains_on_each_batch_until_the_last_step_and_drops_the_rest() -> None:
    """Two batches fit into the steps of the run, the third is dropped."""
    source = ListSource(3)
    steps = sum(batch.num_steps for batch in make_batches(3)[:2])
    state = TrainingState(make_config(job={"total_steps": steps}), VECTOR, None)
    weights = SharedBlock.create("test-weights")
    failures: list[Exception] = []
    try:
        learner = Learner(state, source, weights)
        thread = LearnerThread(0, learner, failures.append)
        thread.start()
        thread.join(10.0)
        reader = WeightsReader(weights.map())
        published = (reader.policy_version, reader.trained_steps)
    finally:
        weights.close()

    assert failures == []
    assert source.released == [(0, True), (1, True), (2, False)]
    assert published == (2, steps)
    counters = state.counters
    assert counters.num_episodes == 2
    assert counters.trained_unrolls == 2 * counters.dropped_unrolls
