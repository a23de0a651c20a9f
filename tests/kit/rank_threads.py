"""Learner ranks as threads of a test: real process groups of torch.distributed, over gloo."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
import torch.distributed as dist

from impala_server.learner.batch_loader import Batch
from impala_server.learner.parts import map_columns
from impala_server.ranks.group import RankGroup

_Result = TypeVar("_Result")


def on_ranks(
    work: Callable[[RankGroup], _Result], num_ranks: int = 2, timeout_s: float = 10.0
) -> list[_Result]:
    """Runs `work` on a thread for each rank; returns the results by rank."""
    store = dist.HashStore()

    def run(rank: int) -> _Result:
        return work(RankGroup(store, rank, num_ranks, timeout_s))

    with ThreadPoolExecutor(num_ranks) as pool:
        futures = [pool.submit(run, rank) for rank in range(num_ranks)]
        return [future.result(60.0) for future in futures]


def take_columns(batch: Batch, columns: slice) -> Batch:
    """Returns some unrolls of a batch without replay."""
    part = map_columns(batch, lambda leaf: leaf[:, columns])
    return part._replace(
        policy_versions=batch.policy_versions[columns],
        num_steps=int((~part.is_padding).sum()),
    )


def join_columns(one: Batch, other: Batch) -> Batch:
    """Returns two batches side by side."""
    tensors: list[torch.Tensor] = []
    map_columns(other, lambda leaf: tensors.append(leaf) or leaf)  # type: ignore[func-returns-value]
    rest = iter(tensors)
    both = map_columns(one, lambda leaf: torch.cat((leaf, next(rest)), dim=1))
    return both._replace(num_steps=one.num_steps + other.num_steps)
