"""Two rank loops of one process: what rank 0 does takes effect before the same update on both."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch.distributed as dist
from running_server import make_config
from update_batches import VECTOR, ListSource, make_batches

from impala_common.config import RanksConfig
from impala_common.errors import CheckpointWriteError, QueueClosedError
from impala_common.run.checkpoints import Checkpoint
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.learner import Learner
from impala_server.learner.training_state import TrainingState
from impala_server.ranks.change_list import ChangeList
from impala_server.ranks.checkpoint_bytes import pack_checkpoint, unpack_checkpoint
from impala_server.ranks.exchange import TorchExchange
from impala_server.ranks.group import RankGroup
from impala_server.ranks.rank_loop import RankLoop
from impala_server.storage.shared_block import SharedBlock

pytestmark = pytest.mark.timeout(60)
_PATIENCE_S = 20.0


class EndlessSource(ListSource):
    """The same batches again and again; none while `is_dry`."""

    def __init__(self, seed: int) -> None:
        super().__init__(make_batches(4, seed))
        self.is_dry = threading.Event()
        self._is_closed = threading.Event()

    def take(self) -> TakenBatch:
        while not self._is_closed.is_set():
            if self.is_dry.is_set():
                self._is_closed.wait(0.02)
                continue
            taken = super().take()
            self._waiting.append(taken)
            return taken
        raise QueueClosedError("closed")

    def close(self) -> None:
        self._is_closed.set()


class Rank(NamedTuple):
    learner: Learner
    loop: RankLoop
    source: EndlessSource
    failures: list[Exception]

    @property
    def version(self) -> int:
        return self.learner.state.counters.policy_version


@contextlib.contextmanager
def two_ranks(total_steps: int = 10**9, **settings: Any) -> Iterator[list[Rank]]:
    """Two ranks whose loops run, from the same weights; ended at the end."""
    config = make_config(
        job={"total_steps": total_steps},
        loss={"reward_normalisation": "return_std"},
        model={"normalise_observations": True},
    )
    store, ranks, blocks = dist.HashStore(), [], []
    groups: list[RankGroup | None] = [None, None]

    def connect(number: int) -> None:
        groups[number] = RankGroup(store, number, 2, 10.0)

    threads = [threading.Thread(target=connect, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    for number, group in enumerate(groups):
        assert group is not None
        exchange = TorchExchange(group)
        source, failures = EndlessSource(number), []
        blocks.append(SharedBlock.create(f"test-weights-{number}"))
        learner = Learner(TrainingState(config, VECTOR, None, exchange), source, blocks[-1])
        if number == 0:
            learner.changes = ChangeList()
        loop = RankLoop(
            learner, group, exchange, RanksConfig(**settings), failures.append, lambda: ("", {})
        )
        ranks.append(Rank(learner, loop, source, failures))
    try:
        for one in ranks:
            one.loop.start()
        yield ranks
    finally:
        ranks[0].loop.request_stop()
        for one in ranks:
            one.source.close()
            one.loop.join(_PATIENCE_S)
        for block in blocks:
            block.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        threading.Event().wait(0.01)


def assert_equal(ranks: list[Rank]) -> None:
    """All ranks have the same weights, optimizer and counters, bit by bit."""
    first, second = (one.learner.state.export() for one in ranks)
    for group in ("weights", "optimizer"):
        for name, array in first.tensors[group].items():
            np.testing.assert_array_equal(array, second.tensors[group][name], err_msg=name)
    counters = [dict(one.state["counters"], dropped_unrolls=0) for one in (first, second)]
    assert counters[0] == counters[1]
    assert first.state["parameters"] == second.state["parameters"]


def test_changes_on_rank_0_are_made_by_all_before_the_same_update() -> None:
    with two_ranks() as ranks:
        first, second = ranks
        wait_until(lambda: second.version > 20)
        for number in range(20):
            first.learner.set_parameter("entropy_cost", str(0.01 + 0.01 * number))
            first.learner.set_parameter("discount", str(0.9 + 0.001 * number))
            wait_until(lambda seen=second.version: second.version > seen + 2)
        wait_until(lambda: len(first.loop.reports) == 2)  # they have compared their weights
    assert first.failures == second.failures == []
    assert first.version == second.version
    assert_equal(ranks)
    assert second.learner.state.config.loss.entropy_cost == pytest.approx(0.2)


def test_pause_holds_all_ranks_at_one_update_until_resume() -> None:
    with two_ranks() as ranks:
        first, second = ranks
        wait_until(lambda: second.version > 5)
        first.learner.gate.shut()
        wait_until(lambda: second.loop.is_paused)
        held_at = first.version, second.version
        first.learner.set_parameter("entropy_cost", "0.5")
        wait_until(lambda: second.learner.state.config.loss.entropy_cost == 0.5)
        later = first.version, second.version
        first.learner.resume()
        wait_until(lambda: second.version > held_at[1] + 5)
    assert held_at[0] == held_at[1]
    assert later == held_at
    assert_equal(ranks)


def test_rollback_takes_all_ranks_back_to_the_checkpoint() -> None:
    with two_ranks() as ranks:
        first, second = ranks
        wait_until(lambda: second.version > 10)
        tensors, state = first.learner.export()
        steps = state["counters"]["trained_steps"]
        checkpoint = unpack_checkpoint(pack_checkpoint("a", steps, tensors, state))
        wait_until(lambda: second.version > state["counters"]["policy_version"] + 10)
        first.learner.gate.shut()
        version = first.version
        first.learner.roll_back(checkpoint)
        wait_until(lambda: second.version == version + 1)
        steps_back = second.learner.state.counters.trained_steps
        first.learner.gate.open()
        wait_until(lambda: second.version > version + 10)
    assert steps_back == steps
    assert first.failures == second.failures == []
    assert_equal(ranks)


def test_run_ends_on_all_ranks_at_the_last_step_of_all() -> None:
    with two_ranks(total_steps=2000) as ranks:
        for one in ranks:
            one.loop.join(_PATIENCE_S)
            assert not one.loop.is_alive()
    assert all(one.learner.state.is_finished for one in ranks)
    assert_equal(ranks)


def test_rank_that_is_told_to_end_ends_all() -> None:
    with two_ranks() as ranks:
        wait_until(lambda: ranks[1].version > 5)
        ranks[1].loop.request_stop()
        ranks[0].loop.join(_PATIENCE_S)
        assert not ranks[0].loop.is_alive()
    assert [one.loop.was_stopped for one in ranks] == [True, True]
    assert [one.failures for one in ranks] == [[], []]
    assert_equal(ranks)


def test_rank_whose_batches_run_dry_is_gone_without_and_comes_back() -> None:
    with two_ranks(rank_wait_s=0.3, allow_empty_rank=True) as ranks:
        wait_until(lambda: ranks[1].version > 5)
        ranks[1].source.is_dry.set()
        wait_until(lambda: ranks[0].version > 100)
        ranks[1].source.is_dry.clear()
        trained = len(ranks[1].source.released)
        wait_until(lambda: len(ranks[1].source.released) > trained + 5)
    assert [one.failures for one in ranks] == [[], []]
    assert_equal(ranks)


def test_ranks_with_different_weights_end_without_another_update() -> None:
    with two_ranks() as ranks:
        wait_until(lambda: ranks[1].version > 5)
        with ranks[1].learner.update_lock:
            next(ranks[1].learner.state.model.parameters()).data[0] += 1e-3
        for one in ranks:
            one.loop.join(_PATIENCE_S)
    assert all("other weights than rank 0" in str(one.failures[0]) for one in ranks)
    with pytest.raises(CheckpointWriteError, match="not saved"):
        ranks[0].learner.export()


def test_checkpoint_in_bytes_is_what_it_was() -> None:
    tensors = {"optimizer": {"a|step": np.float32(3.0).reshape(())}, "rng": {}}
    back: Checkpoint = unpack_checkpoint(pack_checkpoint("x", 7, tensors, {"k": [1]}))

    assert (back.name, back.step, back.state) == ("x", 7, {"k": [1]})
    assert back.tensors["optimizer"]["a|step"].shape == ()
    assert back.tensors["rng"] == {}
