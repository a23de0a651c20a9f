"""Meetings of ranks: sums, bytes, time limits, and the reasons of those that end."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from rank_threads import on_ranks

from impala_common.errors import RankLostError
from impala_server.ranks.group import RankGroup


def test_bytes_of_any_length_reach_all_ranks() -> None:
    def meet(group: RankGroup) -> tuple[list[bytes], bytes, bytes]:
        mine = b"x" * (3 * group.rank)
        return (
            group.gather_bytes(mine),
            group.broadcast(b"from one" if group.rank == 1 else b"ignored", source=1),
            group.broadcast(b""),
        )

    results = on_ranks(meet, num_ranks=3)

    assert results == [([b"", b"xxx", b"xxxxxx"], b"from one", b"")] * 3


def test_rank_that_does_not_come_counts_as_dead_in_time() -> None:
    has_failed = threading.Event()

    def meet(group: RankGroup) -> float:
        group.timeout_s = 0.5
        if group.rank == 1:
            assert has_failed.wait(20.0)
            return 0.0
        start_s = time.monotonic()
        with pytest.raises(RankLostError, match=r"has not answered for 0\.5 s"):
            group.add_up(torch.ones(2))
        has_failed.set()
        return time.monotonic() - start_s

    took_s, _ = on_ranks(meet)

    assert 0.4 < took_s < 8.0


def test_rank_that_left_a_reason_is_quoted() -> None:
    has_left = threading.Event()
    is_over = threading.Event()

    def meet(group: RankGroup) -> None:
        group.timeout_s = 0.5
        if group.rank == 1:
            group.leave_reason("its disk is full")
            has_left.set()
            assert is_over.wait(20.0)
            return
        assert has_left.wait(20.0)
        with pytest.raises(RankLostError, match="rank 1 has ended: its disk is full"):
            group.add_up(torch.ones(2))
        is_over.set()

    on_ranks(meet)


class UnreachableStore:
    """A store on a host that a partition cut off: calls wait until the test is over."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def check(self, unused_keys: list[str]) -> bool:
        self.is_over.wait(60.0)
        raise RuntimeError("connection reset")

    def set(self, unused_key: str, unused_value: str) -> None:
        self.is_over.wait(60.0)
        raise RuntimeError("connection reset")


def test_store_that_cannot_be_reached_delays_no_end() -> None:
    """Seen to fail: a rank that was cut off from the store's host waited, and said nothing."""
    has_failed = threading.Event()

    def meet(group: RankGroup) -> None:
        group.timeout_s = 0.5
        if group.rank == 1:
            assert has_failed.wait(40.0)
            return
        group._store = store = UnreachableStore()
        start_s = time.monotonic()
        with pytest.raises(RankLostError, match=r"has not answered for 0\.5 s"):
            group.add_up(torch.ones(2))
        group.leave_reason("cut off")
        took_s = time.monotonic() - start_s
        store.is_over.set()
        has_failed.set()
        assert took_s < 30.0

    on_ranks(meet)
