"""Two learner ranks of B/2 make the updates of one learner of B: 100 of them, to 1e-6."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from rank_threads import join_columns, on_ranks, take_columns
from running_server import make_config
from update_batches import VECTOR, B, T, make_batches

from impala_common.config import ReuseConfig, TrainConfig
from impala_common.numerics.losses import Targets
from impala_server.learner import update
from impala_server.learner.batch_loader import Batch
from impala_server.learner.parts import Part, cut, fill_up
from impala_server.learner.training_state import TrainingState
from impala_server.ranks.exchange import TorchExchange
from impala_server.ranks.group import RankGroup

NUM_UPDATES = 100
_MAKING = threading.Lock()
HALVES = (slice(0, B), slice(B, 2 * B))


def make_settings(
    optimizer: str = "adam", loss: dict[str, Any] | None = None, **reuse: Any
) -> TrainConfig:
    return make_config(
        model={"normalise_observations": True, "hidden_sizes": (8,)},
        loss={"reward_normalisation": "return_std", **(loss or {})},
        # Most gradients are longer than that.
        optimizer={
            "optimizer": optimizer,
            "learning_rate": 1e-3,
            "eps": 1e-5,
            "max_grad_norm": 1.0,
        },
        rollout={"batch_size": B, "unroll_length": T, "num_storages": B},
        job={"total_steps": 10**6},
        reuse=reuse,
    )


def make_uneven_batches(num_batches: int) -> list[Batch]:
    """Batches of 2B unrolls; more of the second half is padding, and in one batch all of it."""
    random = np.random.default_rng(5)
    batches = []
    for index, (one, other) in enumerate(
        zip(make_batches(num_batches, 1), make_batches(num_batches, 2), strict=True)
    ):
        share = 1.0 if index == 3 else random.random()
        mask = torch.tensor(random.random((T, B)) < share)
        padding = other.is_padding | mask
        other = other._replace(is_padding=padding, num_steps=int((~padding).sum()))
        actions = torch.tensor(random.integers(0, VECTOR.action.num_logits, (T, 2 * B)))
        batches.append(join_columns(one, other)._replace(actions=actions))
    return batches


def train_alone(config: TrainConfig, batches: list[Batch]) -> TrainingState:
    state = TrainingState(config, VECTOR, None)
    for batch in batches:
        assert state.apply(batch).is_applied
    return state


def make_rank(config: TrainConfig, group: RankGroup) -> TrainingState:
    with _MAKING:  # networks are drawn with torch's generator, which threads share
        return TrainingState(config, VECTOR, None, TorchExchange(group))


def train_on_two(config: TrainConfig, batches: list[Batch]) -> list[TrainingState]:
    def train(group: RankGroup) -> TrainingState:
        state = make_rank(config, group)
        for batch in batches:
            assert state.apply(take_columns(batch, HALVES[group.rank])).is_applied
        return state

    return on_ranks(train)


def assert_close(one: TrainingState, other: TrainingState, tolerance: float) -> None:
    wanted = other.export().tensors
    for group in ("weights", "optimizer"):
        assert one.export().tensors[group].keys() == wanted[group].keys()
        for name, array in one.export().tensors[group].items():
            np.testing.assert_allclose(
                array, wanted[group][name], rtol=tolerance, atol=tolerance, err_msg=name
            )


@pytest.mark.parametrize(
    ("optimizer", "reduction", "advantages"),
    [
        ("adam", "sum", "none"),
        ("adam", "mean", "batch"),
        ("rmsprop", "sum", "batch"),
        ("rmsprop", "mean", "none"),
    ],
)
def test_two_ranks_of_half_the_batch_equal_one(
    optimizer: str, reduction: str, advantages: str
) -> None:
    config = make_settings(
        optimizer, {"loss_reduction": reduction}, advantage_normalisation=advantages
    )
    batches = make_uneven_batches(NUM_UPDATES)

    first, second = train_on_two(config, batches)
    alone = train_alone(config, batches)

    assert_close(first, alone, 1e-6)
    assert_close(second, first, 0.0)  # the same bits on every rank
    assert first.counters == second.counters == alone.counters


@pytest.mark.parametrize(
    "reuse",
    [
        {"passes": 2, "parts": 3, "part_kind": "unrolls", "surrogate_clip": 0.2},
        {"passes": 3, "parts": 4, "part_kind": "rows", "advantage_normalisation": "part"},
        {"passes": 4, "parts": 2, "part_kind": "rows", "kl_stop": 1e-3, "vtrace_per_pass": False},
    ],
    ids=["unrolls", "rows", "kl_stop"],
)
def test_two_ranks_with_parts_equal_one_whose_parts_are_theirs_together(
    reuse: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_settings("rmsprop", {"loss_reduction": "mean"}, **reuse)
    batches = make_uneven_batches(20)
    first, second = train_on_two(config, batches)

    generators = [torch.Generator().manual_seed(config.job.seed) for _ in HALVES]

    def cut_alike(
        batch: Batch, targets: Targets | None, reuse: ReuseConfig, unused: torch.Generator
    ) -> Iterator[Part]:
        """Yields what the two ranks cut their halves into, side by side."""
        halves = []
        for columns, generator in zip(HALVES, generators, strict=True):
            half = take_columns(batch, columns)
            mine = None if targets is None else Targets(*(one[:, columns] for one in targets))
            halves.append(fill_up(cut(half, mine, reuse, generator), half, mine, reuse))
        for one, other in zip(*halves, strict=True):
            yield join_parts(one, other)

    monkeypatch.setattr(update, "cut", cut_alike)
    alone = train_alone(config, batches)

    assert_close(first, alone, 1e-6)
    assert_close(second, first, 0.0)
    assert first.counters == second.counters == alone.counters
    most = 20 * config.reuse.passes * config.reuse.parts
    assert (first.counters.optimizer_steps < most) == (config.reuse.kl_stop > 0)


@pytest.mark.parametrize("advantages", ["none", "batch"])
def test_ranks_make_every_step_before_there_are_older_unrolls_to_mix_in(advantages: str) -> None:
    """A batch has fewer unrolls than parts then. Seen to fail: an empty part, RuntimeError."""
    config = make_settings(
        passes=2, parts=B + 1, replay_ratio=1.0, advantage_normalisation=advantages
    )

    first, second = train_on_two(config, make_uneven_batches(5))

    assert_close(second, first, 0.0)
    assert first.counters == second.counters
    assert first.counters.optimizer_steps == 5 * 2 * (B + 1)


def join_parts(one: Part, other: Part) -> Part:
    def join(left: Any, right: Any) -> Any:
        if isinstance(left, torch.Tensor):
            return torch.cat((left, right), dim=1)
        if isinstance(left, dict):
            return {name: join(left[name], right[name]) for name in left}
        if isinstance(left, tuple):
            joined = [join(*pair) for pair in zip(left, right, strict=True)]
            return type(left)(*joined) if hasattr(left, "_fields") else tuple(joined)
        return left

    joined: Part = join(one, other)
    return joined


def test_update_with_a_bad_number_on_one_rank_is_skipped_on_all() -> None:
    config = make_settings()
    good, bad, last = make_uneven_batches(3)
    rewards = bad.rewards.clone()
    rewards[~bad.is_padding[:, :] & (torch.arange(2 * B) >= B)] = torch.inf
    bad = bad._replace(rewards=rewards)

    def train(group: RankGroup) -> tuple[list[bool], TrainingState]:
        state = make_rank(config, group)
        halves = [take_columns(batch, HALVES[group.rank]) for batch in (good, bad, last)]
        return [state.apply(half).is_applied for half in halves], state

    (one, first), (other, second) = on_ranks(train)
    alone = TrainingState(config, VECTOR, None)
    for batch in (good, last):
        alone.apply(batch)

    assert one == other == [True, False, True]
    assert first.counters.skipped_updates == second.counters.skipped_updates == 1
    assert_close(first, alone, 1e-6)
    assert_close(second, first, 0.0)
