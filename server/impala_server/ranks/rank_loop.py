"""RankLoop: the thread that makes updates together with the other ranks.

Before each update all ranks meet: each says whether it has a batch, rank 0 adds the control word.
So pause, changes, rollback and the end take effect at the same update everywhere, and no rank waits
in an update for one that has no batch. Once the learner is built, only this thread meets others.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import xxhash

from impala_common.config import RanksConfig
from impala_common.errors import QueueClosedError, RankLostError
from impala_common.process import failpoints
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.gradient_exchange import BatchTotals
from impala_server.learner.learner import Learner
from impala_server.ranks.batch_fetcher import BatchFetcher
from impala_server.ranks.change_list import ChangeList, make_changes
from impala_server.ranks.exchange import TorchExchange
from impala_server.ranks.group import RankGroup
from impala_server.ranks.header import Header, Orders
from impala_server.ranks.patience import Patience
from impala_server.ranks.reports import MAX_EPISODES, RankReport, require_same_weights
from impala_server.ranks.stand_in import make_stand_in

_BEAT_S = 0.25
_REPORT_S = 1.0
_GIVE_WAY_S = 0.001
_JOIN_S = 2.0


class RankLoop(threading.Thread):
    """Named `impala-ranks`; started and joined by the controller.

    Attributes:
      fetcher: takes batches ahead.
      patience: rank 0's view of ranks without a batch.
      is_paused: whether rank 0 holds updates back.
      drains: whether rank 0 has said that no more unrolls are taken.
      was_stopped: whether the loop ended because a rank was told to end.
      reports: the newest report of each rank, by rank; replaced, never changed.
    """

    def __init__(
        self,
        learner: Learner,
        group: RankGroup,
        exchange: TorchExchange,
        settings: RanksConfig,
        on_failure: Callable[[Exception], None],
        tell_self: Callable[[], tuple[str, Mapping[str, float]]],
    ) -> None:
        """Prepares the loop of one rank.

        Args:
          learner: makes the updates; its `changes` are a ChangeList on rank 0.
          group: the ranks.
          exchange: the one that the learner's state was built with.
          settings: how long to wait for whom.
          on_failure: takes the error that ended the loop.
          tell_self: returns this rank's address and the front end's counts, for the report.
        """
        super().__init__(name="impala-ranks")
        self._learner, self._group, self._exchange = learner, group, exchange
        self._settings = settings
        self._on_failure = on_failure
        self._tell_self = tell_self
        self.fetcher = BatchFetcher(learner.source)
        self.patience = Patience(settings, group.num_ranks)
        self._taken: TakenBatch | None = None
        self._stops = threading.Event()
        self._reported_s = time.monotonic()
        self._episodes: deque[tuple[float, int]] = deque(maxlen=MAX_EPISODES)
        self._num_updates = self._num_steps = self._compute_us = 0
        self._compute_s = self._exchange_s = 0.0
        self.is_paused = self.drains = self.was_stopped = False
        self.reports: tuple[RankReport, ...] = ()

    @property
    def _leads(self) -> bool:
        return self._group.rank == 0

    @property
    def changes(self) -> ChangeList:
        """Changes that the other ranks do not know yet; on rank 0 only."""
        assert isinstance(self._learner.changes, ChangeList)
        return self._learner.changes

    def request_stop(self) -> None:
        """Asks all ranks to end at their next meeting."""
        self._stops.set()

    def run(self) -> None:
        """Works until the run has finished, a rank is told to end, or one fails."""
        self.fetcher.start()
        try:
            while self._meet():
                pass
        except QueueClosedError:
            self._group.leave_reason("it was told to end")
        except Exception as error:
            self._group.leave_reason(str(error))
            self._on_failure(error)
        finally:
            self.fetcher.close()
            self._release(is_trained=False)
            self.fetcher.join(_JOIN_S)

    def _meet(self) -> bool:
        """Meets the other ranks once, and makes the update if all are ready; False: the end."""
        if self._taken is None:
            # A rank that updates are made without keeps no other one waiting.
            is_absent = self.patience.is_absent(self._group.rank)
            self._taken = self.fetcher.next(0.0 if is_absent else _BEAT_S)
        elif self.is_paused:
            self._stops.wait(_BEAT_S)
        elif self.patience.is_waiting:
            self._stops.wait(_GIVE_WAY_S)  # the controller gets the update lock
        learner = self._learner
        with learner.update_lock:
            if learner.state.is_finished:
                return False
            header = self._make_header()
            headers = Header.from_rows(self._group.gather(header.to_row()))
            orders = Orders(headers[0].orders)
            if Orders.CHANGES in orders:
                self._exchange_changes()
            else:
                _require_same_version(headers)
            if Orders.REPORT in orders:
                self._exchange_reports()
            if any(one.stops for one in headers):
                self.was_stopped = True
                return False
            is_ready = [bool(one.is_ready) for one in headers]
            self.patience.note(is_ready, orders)
            self.is_paused = Orders.PAUSE in orders
            if Orders.GIVE_UP in orders:
                raise RankLostError(self.patience.describe(is_ready))
            if not self.patience.may_update:
                return True
            is_trained = self._update(headers)
        self._release(is_trained)
        return not learner.state.is_finished

    def _make_header(self) -> Header:
        orders = Orders.NONE
        if self._leads:
            orders = self.patience.orders()
            orders |= Orders.PAUSE if self._learner.gate.is_shut else Orders.NONE
            orders |= Orders.CHANGES if self.changes else Orders.NONE
            if time.monotonic() - self._reported_s >= _REPORT_S:
                orders |= Orders.REPORT
        taken = self._taken
        return Header(
            is_ready=int(taken is not None),
            stops=int(self._stops.is_set()),
            orders=int(orders),
            policy_version=self._learner.state.counters.policy_version,
            num_steps=taken.batch.num_steps if taken is not None else 0,
            num_unrolls=taken.batch.num_unrolls if taken is not None else 0,
            num_episodes=len(taken.episodes) if taken is not None else 0,
            compute_us=self._compute_us,
        )

    def _exchange_changes(self) -> None:
        data = self._group.broadcast(self.changes.take() if self._leads else b"")
        if not self._leads and make_changes(self._learner, data):
            self.drains = True

    def _update(self, headers: list[Header]) -> bool:
        """Makes one update on the batches of all ranks; returns whether it was applied."""
        learner, taken = self._learner, self._taken
        if taken is None:
            taken = make_stand_in(learner.state)
        self._exchange.agreed = BatchTotals(
            sum(one.num_steps for one in headers), sum(one.num_unrolls for one in headers)
        )
        met_s, start_s = self._group.seconds, time.perf_counter()
        failpoints.hit("ranks.in_update")
        is_trained = learner.make_update(taken)
        exchange_s = self._group.seconds - met_s
        compute_s = time.perf_counter() - start_s - exchange_s
        self._compute_us = int(compute_s * 1e6)
        # Until here the ranks had as long as to join: networks are built, libraries loaded.
        self._group.timeout_s = self._settings.rank_timeout_s
        if is_trained:
            others = sum(one.num_episodes for one in headers) - len(taken.episodes)
            learner.state.counters.num_episodes += others
        self._episodes.extend((one.episode_return, one.num_steps) for one in taken.episodes)
        self._num_updates += 1
        self._num_steps += taken.batch.num_steps
        self._compute_s += compute_s
        self._exchange_s += exchange_s
        return is_trained

    def _release(self, is_trained: bool) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            self._learner.source.release(taken, is_trained)

    def _exchange_reports(self) -> None:
        address, counts = self._tell_self()
        number = max(self._num_updates, 1)
        report = RankReport(
            address=address,
            counts=counts,
            episodes=list(self._episodes),
            digest=self._digest(),
            num_updates=self._num_updates,
            num_steps=self._num_steps,
            compute_s=self._compute_s / number,
            exchange_s=self._exchange_s / number,
            num_bytes=self._group.num_bytes,
        )
        reports = tuple(map(RankReport.from_json, self._group.gather_bytes(report.to_json())))
        try:
            require_same_weights(reports)
        except RankLostError as error:
            self._learner.health.damage = str(error)  # no checkpoint holds them
            raise
        self._reported_s = time.monotonic()
        self._episodes.clear()
        self._num_updates = self._num_steps = self._group.num_bytes = 0
        self._compute_s = self._exchange_s = 0.0
        self.reports = reports
        if self._leads:
            for rank, one in enumerate(reports):
                if rank != self._group.rank:
                    self._learner.stats.add_episodes(one.list_episodes())

    def _digest(self) -> str:
        digest = xxhash.xxh3_64()
        for value in self._learner.state.model.state_dict().values():
            digest.update(value.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def _require_same_version(headers: list[Header]) -> None:
    versions = [one.policy_version for one in headers]
    if len(set(versions)) > 1:
        raise RankLostError(f"the learner ranks have made different numbers of updates: {versions}")
