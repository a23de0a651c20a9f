"""Replay: the choice of older unrolls, and that none is counted again."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from running_server import make_config
from update_batches import VECTOR, B, ListSource, T, make_batches

from impala_common.config import ReuseConfig
from impala_common.errors import ConfigError
from impala_common.numerics.losses import Targets
from impala_common.spec.tensor_spec import DTYPES
from impala_server.learner.batch_loader import Batch
from impala_server.learner.learner import Learner
from impala_server.learner.parts import cut
from impala_server.learner.replay_source import ReplaySource
from impala_server.learner.stats import LearnerStats
from impala_server.learner.training_state import TrainingState
from impala_server.learner.unroll_ring import UnrollRing, count_unroll_bytes
from impala_server.ranks.checkpoint_bytes import pack_checkpoint, unpack_checkpoint
from impala_server.storage.shared_block import SharedBlock


def make_state(replay_ratio: float, num_unrolls: int = 100) -> TrainingState:
    """A state with room for `num_unrolls` older unrolls."""
    settings: dict[str, Any] = {
        "model": {"normalise_observations": True, "hidden_sizes": (8,)},
        "rollout": {"batch_size": B, "unroll_length": T, "num_storages": B},
    }
    spec = TrainingState(make_config(**settings), VECTOR, None).unroll_spec
    reuse = {
        "replay_ratio": replay_ratio,
        "replay_capacity_bytes": num_unrolls * count_unroll_bytes(spec),
    }
    return TrainingState(make_config(**settings, reuse=reuse), VECTOR, None)


def make_numbered_batches(num_batches: int) -> list[Batch]:
    """Every reward of an unroll is the unroll's number, and so is its policy version."""
    batches = []
    for first, batch in zip(range(0, num_batches * B, B), make_batches(num_batches), strict=True):
        numbers = torch.arange(first, first + B)
        batches.append(
            batch._replace(
                rewards=numbers.float().expand(T, B).clone(), policy_versions=numbers.numpy()
            )
        )
    return batches


def numbers_of(batch: Batch) -> list[int]:
    numbers = batch.rewards[0].long().tolist()
    assert batch.policy_versions.tolist() == numbers
    assert (batch.rewards == batch.rewards[0]).all()
    return numbers


def test_batch_has_fresh_unrolls_first_and_distinct_older_ones_behind() -> None:
    """Planted: unrolls of the batch itself replayed in it."""
    source = ReplaySource(ListSource(make_numbered_batches(5)), make_state(replay_ratio=2.0))
    seen: list[int] = []
    for number in range(5):
        taken = source.take()
        numbers = numbers_of(taken.batch)
        fresh, older = numbers[:B], numbers[B:]

        assert fresh == list(range(number * B, (number + 1) * B))
        assert len(older) == min(2 * B, number * B) == taken.batch.num_replayed
        assert len(set(older)) == len(older)
        assert set(older) <= set(seen)
        assert taken.batch.num_unrolls == B
        seen += fresh
        source.release(taken, True)


def test_oldest_unrolls_are_overwritten() -> None:
    source = ReplaySource(
        ListSource(make_numbered_batches(9)), make_state(replay_ratio=1.0, num_unrolls=B + 1)
    )
    for number in range(9):
        taken = source.take()
        older = numbers_of(taken.batch)[B:]

        assert all(one >= (number - 1) * B - 1 for one in older)
        source.release(taken, True)


def test_unrolls_of_a_dropped_batch_never_come_again() -> None:
    """What made an update fail must not make later ones fail. Planted: nothing is forgotten."""
    inner = ListSource(make_numbered_batches(6))
    source = ReplaySource(inner, make_state(replay_ratio=3.0))
    dropped: set[int] = set()
    for number in range(6):
        taken = source.take()
        numbers = numbers_of(taken.batch)
        assert not dropped & set(numbers[B:])
        is_trained = number != 2
        if not is_trained:
            dropped = set(numbers)
        source.release(taken, is_trained)

    assert len(dropped) == 3 * B
    assert inner.released == [(number, number != 2) for number in range(6)]


def test_mixed_batch_is_no_view_of_storage() -> None:
    """The slot is written again while its unrolls are in the ring."""
    batches = make_numbered_batches(2)
    source = ReplaySource(ListSource(batches), make_state(replay_ratio=1.0))
    first = source.take()
    source.release(first, True)
    batches[0].rewards.fill_(-1.0)

    again = source.take()

    assert set(numbers_of(again.batch)[B:]) == set(range(B))


def test_replayed_unrolls_are_counted_neither_as_taken_nor_as_steps_nor_in_statistics() -> None:
    """Planted: statistics of all columns; unrolls counted by the width of the batch."""
    batches = make_batches(3)
    state, weights = make_state(replay_ratio=1.0), SharedBlock.create("test-weights")
    source = ReplaySource(ListSource(batches), state)
    try:
        learner = Learner(state, source, weights)
        for _ in batches:
            taken = source.take()
            source.release(taken, learner.train(taken))
    finally:
        weights.close()

    num_steps = sum(batch.num_steps for batch in batches)
    assert taken.batch.num_replayed == B
    assert state.counters.trained_steps == num_steps
    assert state.counters.trained_unrolls == 3 * B
    counts = [v for name, v in state.model.state_dict().items() if name.endswith("moments.0.count")]
    assert [float(count) for count in counts] == [num_steps]
    assert source.describe(taken, False) == [[2]]


def test_rollback_forgets_older_unrolls() -> None:
    """What spoilt the weights must not be trained on again. Planted: the ring stays full."""
    state, weights = make_state(replay_ratio=1.0), SharedBlock.create("test-weights")
    source = ReplaySource(ListSource(make_batches(5)), state)
    num_replayed = []
    try:
        learner = Learner(state, source, weights)
        checkpoint = unpack_checkpoint(pack_checkpoint("a", 0, *learner.export()))
        for number in range(5):
            taken = source.take()
            num_replayed.append(taken.batch.num_replayed)
            if number == 2:
                learner.roll_back(checkpoint)  # while a batch is out
            source.release(taken, learner.train(taken))
    finally:
        weights.close()

    assert num_replayed == [0, B, B, 0, B]


def test_lag_is_of_fresh_unrolls_and_age_of_all() -> None:
    state = make_state(replay_ratio=1.0)
    source = ReplaySource(ListSource(make_batches(2)), state)
    stats = LearnerStats(0.0)
    for _ in range(2):
        taken = source.take()
        versions = taken.batch.policy_versions
        versions[: taken.batch.num_unrolls] = state.counters.policy_version
        result, steps = state.apply(taken.batch), taken.batch.num_steps
        stats.add(taken, result, state.counters.policy_version - 1, 0.0, steps)
        source.release(taken, True)

    collected = stats.collect(1.0)

    assert collected["learner/policy_lag_mean"] == 0.0
    assert collected["learner/sample_age_mean"] == pytest.approx(0.25)  # 0, then half are 1 old


def test_memory_that_holds_no_batch_is_refused() -> None:
    state = make_state(replay_ratio=1.0, num_unrolls=B - 1)

    with pytest.raises(ConfigError, match=f"replay_capacity_bytes.*{B} unrolls of"):
        ReplaySource(ListSource([]), state)


def test_ring_keeps_recurrent_states_with_their_columns() -> None:
    ring = UnrollRing(2 * B)
    batches = [
        batch._replace(initial_agent_state=(batch.rewards[:1].expand(2, B).clone()[..., None],))
        for batch in make_numbered_batches(2)
    ]
    ring.add(batches[0])

    mixed = ring.mix(batches[1], np.array([2, 0]))

    assert mixed.rewards[0].tolist() == [3, 4, 5, 2, 0]
    assert mixed.initial_agent_state[0][1, :, 0].tolist() == [3, 4, 5, 2, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", range(B + 2))
def test_ring_keeps_observations_of_every_permitted_type(dtype: str, first: int) -> None:
    """Also where a batch goes on at the beginning of the memory. Planted: index_copy_."""
    ring = UnrollRing(B + 2)
    ring._next = first
    (batch,) = make_numbered_batches(1)
    values = np.arange((T + 1) * B).reshape(T + 1, B).astype(dtype)
    inputs = batch.inputs._replace(observations={"observation": torch.from_numpy(values)})
    batch = batch._replace(inputs=inputs)

    places = ring.add(batch)
    mixed = ring.mix(batch, places[::-1].copy())

    assert places.tolist() == [(first + n) % (B + 2) for n in range(B)]
    assert sorted(places) == ring.usable.tolist()
    kept = mixed.inputs.observations["observation"].numpy()
    assert kept.dtype == values.dtype
    np.testing.assert_array_equal(kept, np.concatenate([values, values[:, ::-1]], axis=1))
    assert numbers_of(mixed) == [*range(B), *reversed(range(B))]


def test_parts_keep_observations_of_every_permitted_type() -> None:
    """Whole unrolls are gathered, and so are rows."""
    batch, targets = make_numbered_batches(1)[0], torch.zeros(T, B)
    leaves = {
        name: torch.arange((T + 1) * B).view(T + 1, B).numpy().astype(name) for name in DTYPES
    }
    observations = {name: torch.from_numpy(leaf) for name, leaf in leaves.items()}
    batch = batch._replace(inputs=batch.inputs._replace(observations=observations))
    generator = torch.Generator().manual_seed(1)
    for kind in ("unrolls", "rows"):
        reuse = ReuseConfig(parts=2, part_kind=kind)
        parts = list(cut(batch, Targets(*[targets] * 4), reuse, generator))
        for name in DTYPES:
            seen = [part.inputs.observations[name].flatten().tolist() for part in parts]
            wanted = leaves[name][:-1].flatten()
            if kind == "rows":
                wanted = wanted[~batch.is_padding.numpy().flatten()]
            assert sorted(itertools.chain(*seen)) == sorted(wanted.tolist())
