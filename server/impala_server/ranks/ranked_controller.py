"""RankedController: the learner process of one rank, from start to end.

As `Controller`, but the learner is built and updated together with the other ranks. Rank 0 owns
checkpoints, metrics, administration and evaluation; the others have a folder of their own,
RUN/ranks/rank-001, for their metrics and addresses, and write no checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
from collections.abc import Mapping

import torch

from impala_common.config import TrainConfig
from impala_common.config.checks import is_own_model
from impala_common.errors import (
    CheckpointWriteError,
    IllegalTransitionError,
    ImpalaError,
    QueueClosedError,
    rebuild_error,
)
from impala_common.models.registry import find_maker
from impala_common.process.devices import resolve_device
from impala_common.rpc.addresses import host_of, join_address, port_of
from impala_common.run import metrics
from impala_common.run.checkpoints import Checkpoint
from impala_common.run.run_directory import RunDirectory
from impala_common.spec.specs import EnvironmentSpec
from impala_server import messages
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.checkpoint_writer import CheckpointWriter, SaveTicket
from impala_server.learner.control import State
from impala_server.learner.controller import Controller
from impala_server.learner.learner import Learner
from impala_server.learner.run_files import load_run_files
from impala_server.learner.training_state import TrainingState
from impala_server.ranks.change_list import ChangeList
from impala_server.ranks.checkpoint_bytes import pack_checkpoint, unpack_checkpoint
from impala_server.ranks.exchange import TorchExchange
from impala_server.ranks.group import RankGroup
from impala_server.ranks.joining import Joining, RankFacts, choose_device
from impala_server.ranks.place import RankPlace
from impala_server.ranks.rank_loop import RankLoop
from impala_server.ranks.reports import RankReport, add_counts, find_stragglers
from impala_server.storage.handoff import HandoffPipe
from impala_server.storage.process_ends import ProcessEnds

_LOG = logging.getLogger(__name__)
_AGREE_S = 6.0
_STRAGGLES_AFTER = 5
_LEADERS_COMMANDS = frozenset(
    {"pause", "resume", "checkpoint", "rollback", "set", "drain", "shutdown", "clear_best"}
)


class RankedController(Controller):
    """One rank's learner process."""

    def __init__(
        self, config: TrainConfig, run: RunDirectory, ends: ProcessEnds, place: RankPlace
    ) -> None:
        """Opens the files of this rank."""
        self._place = place
        self._group: RankGroup | None = None
        self._exchange: TorchExchange | None = None
        self._loop: RankLoop | None = None
        self._proposed: EnvironmentSpec | None = None  # what this rank's run or actor has
        self._restored: Checkpoint | None = None
        self._straggling = dict.fromkeys(range(place.num_ranks), 0)
        self._told_reports: tuple[RankReport, ...] = ()
        self._told_lag = config.rollout.max_policy_lag
        job = dataclasses.replace(config.job, device=choose_device(config.job.device, place))
        super().__init__(dataclasses.replace(config, job=job), run, ends)

    @property
    def _leads(self) -> bool:
        return self._place.leads

    def run(self) -> None:
        """Works as `Controller.run`; the other ranks are told why this one fails."""
        try:
            super().run()
        except Exception as error:
            if self._group is not None:
                self._group.leave_reason(str(error))
            raise

    def _make_queue(self, handoff: HandoffPipe) -> BatchQueue:
        return _RankedQueue(handoff, lambda: self._loop)

    def _begin(self) -> None:
        """Meets the other ranks; rank 0 reads the run's files."""
        if is_own_model(self._config.model.model):
            find_maker(self._config.model.model)
        if self._leads:
            self._proposed, self._restored = load_run_files(self._run, self.store, self._config)
        if not self._is_welcome():
            return
        facts = RankFacts.of(self._config, resolve_device(self._config.job.device))
        joining = Joining(self._place, self._config, facts)
        while (group := joining.poll()) is None:
            try:
                if self._receive():
                    self._is_stop_wanted = True
            except QueueClosedError:
                self._is_stop_wanted = True
            if self._is_stop_wanted:
                return
        self._group, self._exchange = group, TorchExchange(group)
        _LOG.info("learner rank %d of %d has joined", group.rank, group.num_ranks)

    def _define(self, environment: EnvironmentSpec) -> None:
        """Proposes the first actor's environment to the other ranks."""
        self._proposed = environment

    def _tick(self) -> None:
        if self._group is not None and self.learner is None and not self._is_stop_wanted:
            self._meet_before_build(self._group)
        super()._tick()
        if self.learner is not None and self._loop is not None:
            self._follow(self.learner, self._loop)

    def _meet_before_build(self, group: RankGroup) -> None:
        """Builds the learner on all ranks once one of them knows the environment."""
        mine = torch.tensor([self._proposed is not None, self._is_stop_wanted]).long()
        proposals, stops = group.gather(mine).T.tolist()
        if any(stops):
            self._end_with_others()
            return
        if not any(proposals):
            return
        text = "" if self._proposed is None else json.dumps(self._proposed.to_json())
        self._tell_ranks([json.loads(one) for one in group.gather_bytes(self._make_card())])
        chosen = group.broadcast(text.encode(), proposals.index(1))
        environment = EnvironmentSpec.from_json(json.loads(chosen))
        data = self._build_first(environment) if self._leads else b""
        data = group.broadcast(data)
        if data.startswith(b"{"):
            self._refuse(json.loads(data))
            return
        if not self._leads:
            self._restored = unpack_checkpoint(data[1:])
            self._build(environment, None)
        self._start_loop(group)

    def _build_first(self, environment: EnvironmentSpec) -> bytes:
        """Builds the learner on rank 0; returns its state, or why it cannot be, for the others."""
        try:
            self._build(environment, self._restored)
        except ImpalaError as error:
            if self._restored is not None:
                raise  # a run that goes on cannot wait for another environment
            return json.dumps({"reason": error.reason, "text": str(error)}).encode()
        assert self.learner is not None
        snapshot = self.learner.export()
        steps = snapshot.state["counters"]["trained_steps"]
        return b"C" + pack_checkpoint("rank-0", steps, snapshot.tensors, snapshot.state)

    def _refuse(self, failure: Mapping[str, str]) -> None:
        if self._proposed is not None:
            self._front_end.send(messages.Refused(failure["reason"], failure["text"]))
            self._proposed = None
        _LOG.info("refused: %s", rebuild_error(failure["reason"], failure["text"]))

    def _make_state(
        self, environment: EnvironmentSpec, checkpoint: Checkpoint | None
    ) -> TrainingState:
        return TrainingState(
            self._config, environment, checkpoint or self._restored, self._exchange
        )

    def _make_checkpoint_writer(self, learner: Learner) -> CheckpointWriter:
        if self._leads:
            return super()._make_checkpoint_writer(learner)
        return _NoCheckpoints(self.store, self._take_snapshot, learner.history.add)

    def _start_threads(self, learner: Learner) -> None:
        """Starts none: `_start_loop` does when all ranks have built theirs."""
        if self._leads:
            learner.changes = ChangeList()

    def _start_loop(self, group: RankGroup) -> None:
        assert self.learner is not None
        assert self._exchange is not None
        self._loop = RankLoop(
            self.learner,
            group,
            self._exchange,
            self._config.ranks,
            self._on_failure,
            lambda: (self._advertised, dataclasses.asdict(self._front_end_counts)),
        )
        self._threads.append(self._loop)
        self._loop.start()

    def _make_card(self) -> bytes:
        return json.dumps([self._advertised, 0]).encode()

    def _tell_ranks(self, cards: list[tuple[str, int]]) -> None:
        """Tells the front end where the ranks are: address and number of actors of each."""
        addresses, loads = zip(*cards, strict=True)
        self._front_end.send(messages.RanksNews(self._place.rank, addresses, loads))

    @property
    def _advertised(self) -> str:
        """HOST:PORT by which actors reach this rank."""
        host = self._config.ranks.rank_host or host_of(self.address)
        if host in ("0.0.0.0", "::"):  # noqa: S104 (every address of this machine: not one)
            host = socket.gethostname()
        return join_address(host, port_of(self.address))

    def _work(self) -> str:
        reason = super()._work()
        if reason == "finished" or self._failure is not None:
            return reason
        if self._loop is not None:
            self._loop.request_stop()
            self._loop.join(_AGREE_S)
        elif self._group is not None and self.learner is None:
            self._group.gather(torch.tensor([0, 1]))
        return reason

    def _follow(self, learner: Learner, loop: RankLoop) -> None:
        """Does on this thread what the loop's meetings have brought."""
        if loop.was_stopped and not self._is_stop_wanted:
            self._end_with_others()
        if loop.reports is not self._told_reports:
            self._told_reports = loop.reports
            self._tell_ranks(
                [(one.address, int(one.counts.get("actors_connected", 0))) for one in loop.reports]
            )
        lag = learner.state.config.rollout.max_policy_lag
        if lag != self._told_lag:
            self._told_lag = lag
            self._front_end.send(messages.PolicyLagSet(lag))
        if self._leads:
            if self.machine.state is State.DRAINING and not loop.patience.is_draining:
                loop.patience.is_draining = True
                with learner.update_lock:
                    loop.changes.note_drain()
            return
        state = self.machine.state
        if loop.drains and state in (State.RUNNING, State.PAUSED):
            self.machine.move("drain")
            self._front_end.send(messages.Drain("stopping"))
        elif loop.is_paused and state is State.RUNNING:
            self.machine.move("pause")
        elif not loop.is_paused and state is State.PAUSED:
            self.machine.move("resume")

    def _end_with_others(self) -> None:
        """Ends since another rank was told to; the supervisor takes it as an order to this one."""
        self._supervisor.send(messages.ShutdownAsked())
        self._is_stop_wanted = True

    def _on_front_end(self, message: messages.Message) -> None:
        is_leaders = isinstance(message, messages.Call) and message.command in _LEADERS_COMMANDS
        if is_leaders and not self._leads:
            assert isinstance(message, messages.Call)
            text = (
                f"this is learner rank {self._place.rank}: {message.command} is for rank 0, which "
                "tells all ranks"
            )
            self._front_end.send(
                messages.CallFailed(message.call_id, IllegalTransitionError.reason, text)
            )
            return
        super()._on_front_end(message)

    def _totals(self, learner: Learner, now_s: float) -> dict[str, float]:
        totals = super()._totals(learner, now_s)
        reports = self._loop.reports if self._loop is not None else ()
        if not reports or not self._leads:
            return totals
        summed = add_counts(reports)
        for name, count in _COUNTS.items():
            totals[name] = summed.get(count, totals[name])
        return totals

    def _log(self, now_s: float, more: dict[str, float] | None = None) -> None:
        loop = self._loop
        if loop is None or not loop.reports:
            super()._log(now_s, more)
            return
        values = dict(more or {})
        for rank, report in enumerate(loop.reports):
            values |= {
                metrics.rank_metric(rank, "update_s"): report.compute_s,
                metrics.rank_metric(rank, "exchange_s"): report.exchange_s,
                metrics.rank_metric(rank, "queue_fill"): report.counts.get("storage_fill", 0.0),
                metrics.rank_metric(rank, "actors"): report.counts.get("actors_connected", 0),
                metrics.rank_metric(rank, "steps"): report.num_steps,
                metrics.rank_metric(rank, "held_up_s"): loop.patience.held_up_s[rank],
            }
        values[metrics.EXCHANGE_BYTES] = loop.reports[0].num_bytes
        if self._leads:
            self._look_for_stragglers(loop)
        super()._log(now_s, values)

    def _look_for_stragglers(self, loop: RankLoop) -> None:
        slow = find_stragglers(loop.reports)
        for rank in self._straggling:
            self._straggling[rank] = self._straggling[rank] + 1 if rank in slow else 0
            if self._straggling[rank] == _STRAGGLES_AFTER:
                times = ", ".join(f"{1000 * one.compute_s:.1f}" for one in loop.reports)
                _LOG.warning(
                    "learner rank %d is a straggler: the ranks' own parts of an update take %s ms, "
                    "and all wait for the slowest",
                    rank,
                    times,
                )


_COUNTS = {
    metrics.QUEUE_FILL: "storage_fill",
    metrics.ACTORS_CONNECTED: "actors_connected",
    metrics.UNROLLS_ACCEPTED: "accepted",
    metrics.UNROLLS_DUPLICATE: "duplicate",
    metrics.UNROLLS_STALE: "stale",
    metrics.UNROLLS_INVALID: "invalid",
    metrics.UNROLLS_CAPACITY: "capacity",
    metrics.UNROLLS_TRAINED: "trained",
    metrics.UNROLLS_DROPPED: "dropped",
    metrics.UNROLLS_QUEUED: "queued",
    metrics.ENVIRONMENT_FAILURES: "environment_failures",
}
"""Metric -> count of the front ends, added up over ranks."""


class _NoCheckpoints(CheckpointWriter):
    """Takes every request as done: rank 0 writes the run's checkpoints."""

    def request(self, name: str = "") -> SaveTicket:
        """Returns a ticket that is settled."""
        ticket = SaveTicket()
        is_named = bool(name)
        result = CheckpointWriteError("rank 0 writes checkpoints") if is_named else self.last
        ticket.settle(result)
        return ticket


class _RankedQueue(BatchQueue):
    """A queue that is idle when those of the other ranks are, too."""

    def __init__(self, handoff: HandoffPipe, find_loop: object) -> None:
        super().__init__(handoff)
        self._find_loop = find_loop

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits on any rank."""
        loop = self._find_loop()  # type: ignore[operator]
        return super().is_idle and not (loop is not None and loop.patience.has_ready)
