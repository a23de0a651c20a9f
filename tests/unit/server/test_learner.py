"""The learner takes batches of any source into training or drops them, and publishes."""

from __future__ import annotations

import pytest
from running_server import make_config
from update_batches import VECTOR, ListSource, make_batches

from impala_server.learner.learner import Learner
from impala_server.learner.learner_thread import LearnerThread
from impala_server.learner.training_state import TrainingState
from impala_server.storage.shared_block import SharedBlock
from impala_server.storage.weights_block import WeightsReader


@pytest.mark.timeout(10)
def test_thread_trains_on_each_batch_until_the_last_step_and_drops_the_rest() -> None:
    """Two batches fit into the steps of the run, the third is dropped."""
    source = ListSource(make_batches(3))
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
