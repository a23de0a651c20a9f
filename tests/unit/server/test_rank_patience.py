"""Ranks without a batch: how long they are waited for, and what is ordered then."""

from __future__ import annotations

from impala_common.config import RanksConfig
from impala_server.ranks.header import Orders
from impala_server.ranks.patience import Patience

READY, EMPTY = True, False


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_all_ready_ranks_update_and_nobody_is_waited_for() -> None:
    patience = Patience(RanksConfig(), 2, Clock())

    patience.note([READY, READY], Orders.NONE)

    assert patience.may_update
    assert not patience.is_waiting


def test_pause_holds_ready_ranks_back_and_no_time_counts() -> None:
    clock = Clock()
    patience = Patience(RanksConfig(rank_wait_s=5.0), 2, clock)

    for _ in range(3):
        patience.note([READY, EMPTY], Orders.PAUSE)
        clock.now_s += 60.0

    assert not patience.may_update
    assert patience.orders() == Orders.NONE


def test_rank_without_a_batch_for_too_long_ends_the_run() -> None:
    clock = Clock()
    patience = Patience(RanksConfig(rank_wait_s=5.0), 2, clock)
    patience.note([READY, EMPTY], Orders.NONE)
    clock.now_s = 4.9
    before = patience.orders()
    clock.now_s = 5.1

    assert before == Orders.NONE
    assert patience.orders() == Orders.GIVE_UP
    assert "rank 1 had no batch for 5 s" in patience.describe([READY, EMPTY])


def test_run_in_which_no_rank_has_a_batch_waits_for_ever() -> None:
    clock = Clock()
    patience = Patience(RanksConfig(rank_wait_s=5.0), 2, clock)

    for _ in range(10):
        patience.note([EMPTY, EMPTY], Orders.NONE)
        clock.now_s += 60.0

    assert patience.orders() == Orders.NONE


def test_empty_rank_is_left_out_until_it_has_a_batch_and_others_are_still_waited_for() -> None:
    clock = Clock()
    patience = Patience(RanksConfig(rank_wait_s=5.0, allow_empty_rank=True), 3, clock)
    patience.note([READY, READY, EMPTY], Orders.NONE)
    clock.now_s = 6.0
    orders = patience.orders()
    patience.note([READY, READY, EMPTY], orders)
    first = patience.may_update
    patience.note([READY, READY, EMPTY], patience.orders())
    second = patience.may_update  # at once
    patience.note([READY, EMPTY, EMPTY], patience.orders())
    third = patience.may_update
    patience.note([READY, READY, READY], patience.orders())
    patience.note([READY, READY, EMPTY], patience.orders())

    assert orders == Orders.GO_WITHOUT
    assert first
    assert second
    assert not third  # rank 1 is waited for as before
    assert not patience.may_update  # rank 2 was back
    assert patience.held_up_s == [0.0, 0.0, 6.0]


def test_draining_goes_without_empty_ranks_soon() -> None:
    clock = Clock()
    patience = Patience(RanksConfig(rank_wait_s=60.0), 2, clock)
    patience.is_draining = True
    patience.note([READY, EMPTY], Orders.NONE)
    clock.now_s = 1.0

    assert patience.orders() == Orders.GO_WITHOUT
