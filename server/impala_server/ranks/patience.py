"""Patience: how long ranks without a batch are waited for, and what rank 0 orders then.

Every rank keeps one; rank 0's decides. Owned by the rank loop's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from impala_common.config import RanksConfig
from impala_server.ranks.header import Orders

_DRAIN_WAIT_S = 0.5


class Patience:
    """Who has been without a batch while another had one, and since when.

    All ranks note the same meetings, so that all come to the same `may_update`.

    Attributes:
      is_waiting: whether a rank had a batch at the last meeting, and waited for another one's.
      may_update: whether the ranks make an update now.
      has_ready: whether any rank had a batch.
      is_draining: whether batches that are left are trained without the ranks that have none.
      held_up_s: by rank: seconds in which others had a batch and waited for it.
    """

    def __init__(
        self,
        settings: RanksConfig,
        num_ranks: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts with nobody waiting."""
        self._settings = settings
        self._clock = clock
        self._since_s = self._noted_s = clock()
        self._late: set[int] = set()
        self._absent: set[int] = set()  # updates are made without them until they have a batch
        self.is_waiting = self.may_update = self.has_ready = self.is_draining = False
        self.held_up_s = [0.0] * num_ranks

    def is_absent(self, rank: int) -> bool:
        """Returns whether updates are made without a rank, which has had no batch since."""
        return rank in self._absent

    def orders(self) -> Orders:
        """Returns what rank 0 orders at the next meeting."""
        goes_without = self._settings.allow_empty_rank or self.is_draining
        limit_s = self._settings.rank_wait_s
        limit_s = min(_DRAIN_WAIT_S, limit_s) if self.is_draining else limit_s
        if not self.is_waiting or self._clock() - self._since_s < limit_s:
            return Orders.NONE
        return Orders.GO_WITHOUT if goes_without else Orders.GIVE_UP

    def note(self, is_ready: list[bool], orders: Orders) -> None:
        """Takes what the ranks said at a meeting."""
        now_s = self._clock()
        if self.is_waiting:
            for rank in self._late:
                self.held_up_s[rank] += now_s - self._noted_s
        self._noted_s = now_s
        missing = {rank for rank, ready in enumerate(is_ready) if not ready}
        self._absent &= missing
        if Orders.GO_WITHOUT in orders:
            self._absent |= missing
        self._late = missing - self._absent
        self.has_ready = any(is_ready)
        is_paused = Orders.PAUSE in orders
        was_waiting = self.is_waiting
        self.is_waiting = self.has_ready and bool(self._late) and not is_paused
        self.may_update = self.has_ready and not self._late and not is_paused
        if self.is_waiting and not was_waiting:
            self._since_s = now_s

    def describe(self, is_ready: list[bool]) -> str:
        """Returns why the run ends."""
        missing = ", ".join(str(rank) for rank, ready in enumerate(is_ready) if not ready)
        return (
            f"learner rank {missing or '(back just now)'} had no batch for "
            f"{self._settings.rank_wait_s:g} s (rank_wait_s) while another rank had one: are its "
            "actors gone? --allow-empty-rank goes on without such a rank"
        )
