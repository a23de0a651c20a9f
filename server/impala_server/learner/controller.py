"""Controller: starts, watches, logs, saves and stops the learner process.

Runs on the learner process's main thread. Owns the learner threads, the checkpoint store and the
metrics writer. Listens to the supervisor and to the front end (the first actor's specification).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from multiprocessing import connection

from impala_common.config import TrainConfig
from impala_common.config.checks import is_own_model
from impala_common.config.toml_io import dump_config
from impala_common.errors import CheckpointError, ImpalaError, QueueClosedError
from impala_common.models.registry import find_maker
from impala_common.run import metrics
from impala_common.run.checkpoints import Checkpoint, CheckpointStore
from impala_common.run.run_directory import RunDirectory, write_text_atomic
from impala_common.spec.specs import EnvironmentSpec
from impala_server import messages
from impala_server.findings import FindingsMaker, as_metrics
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.bottleneck import BottleneckFinder
from impala_server.learner.checkpoint_writer import CheckpointWriter, SaveTicket
from impala_server.learner.commands import AdminCommands, CommandTools
from impala_server.learner.control import State, StateMachine
from impala_server.learner.evaluations import Evaluations
from impala_server.learner.host_buffers import HostBuffers
from impala_server.learner.learner import Learner
from impala_server.learner.learner_thread import LearnerThread
from impala_server.learner.replay_source import make_source
from impala_server.learner.run_files import load_run_files, write_specs
from impala_server.learner.status_board import StatusBoard
from impala_server.learner.totals import make_totals
from impala_server.learner.training_state import StateSnapshot, TrainingState
from impala_server.learner.welcome import wait_until_bound
from impala_server.storage.handoff import HandoffPipe
from impala_server.storage.process_ends import STORAGE, WEIGHTS, ProcessEnds
from impala_server.tracking.metrics_writer import make_metrics_writer

_LOG = logging.getLogger(__name__)
_POLL_S = 0.05
_JOIN_S = 10.0
_LAST_COUNTS_S = 1.0
_LAST_SAVE_S = 12.0


class Controller:
    """The learner process from start to end."""

    def __init__(self, config: TrainConfig, run: RunDirectory, ends: ProcessEnds) -> None:
        """Opens the run's files.

        Raises:
          CheckpointError: the run has checkpoints, but none can be used.
        """
        self._config = config
        self._run = run
        self._ends = ends
        self.store = CheckpointStore(run.checkpoints_path, config.checkpoint.keep_checkpoints)
        self._writer = make_metrics_writer(run, config)
        self._front_end = ends.controls["front_end"]
        self._supervisor = ends.supervisor
        self.queue = self._make_queue(ends.handoffs["front_end"])
        self._threads: list[threading.Thread] = []
        self.learner: Learner | None = None
        self.machine = StateMachine()
        self._board = StatusBoard(self.machine.state.value, self._supervisor, self._front_end)
        self.evaluations = Evaluations(
            run,
            config.evaluation,
            tell_front_end=self._front_end.send,
            record=self.record_evaluation,
            drop_shown=self._board.drop_metrics,
        )
        tools = CommandTools(
            machine=self.machine,
            queue=self.queue,
            store=self.store,
            evaluations=self.evaluations,
            request_save=self.request_save,
            record=self.record,
            tell_front_end=self._front_end.send,
            tell_supervisor=self._supervisor.send,
            tell_status=self.tell_status,
        )
        self._commands = AdminCommands(tools, run)
        self._failure: Exception | None = None
        self._is_stop_wanted = False
        self.address = ""  # of the front end; known once a learner that waits for it is welcome
        self._front_end_counts = messages.FrontEndCounts()
        self._bottleneck = BottleneckFinder(config.rollout.num_learners)
        self._findings: FindingsMaker | None = None
        self._start_s = self._last_log_s = self._last_save_s = _now_s()
        self._saved_steps = 0
        self._buffers = HostBuffers()
        self._checkpoints: CheckpointWriter | None = None

    def _make_queue(self, handoff: HandoffPipe) -> BatchQueue:
        return BatchQueue(handoff)

    def run(self) -> None:
        """Works until the run has finished, the supervisor says stop, or something fails.

        Raises:
          ImpalaError: the learner failed; a last checkpoint is still written.
        """
        if is_own_model(self._config.model.model):
            find_maker(self._config.model.model)  # refuse a wrong name before any actor connects
        self._begin()
        reason = self._work()
        self._stop(reason)
        if self._failure is not None:
            raise self._failure

    def _begin(self) -> None:
        environment, checkpoint = load_run_files(self._run, self.store, self._config)
        if environment is not None and self._is_welcome():
            self._build(environment, checkpoint)

    def _is_welcome(self) -> bool:
        """Waits until the front end listens; returns False if told to stop first."""
        address = wait_until_bound(self._supervisor)
        self.address, self._is_stop_wanted = address or "", address is None
        return address is not None

    def _work(self) -> str:
        """Returns why work ended: "finished" or "stopping"."""
        while True:
            if self._is_stop_wanted:
                return "stopping"
            try:
                if self._receive():
                    return "stopping"
            except QueueClosedError:
                return "stopping"
            if self._failure is not None:
                return "stopping"
            if self.learner is not None and self.learner.state.is_finished:
                return "finished"
            self._tick()

    def _receive(self) -> bool:
        """Waits a moment for messages and handles them; returns whether the supervisor says stop.

        Raises:
          QueueClosedError: the supervisor or the front end is gone.
        """
        pipes = (self._supervisor, self._front_end)
        connection.wait([pipe.fileno() for pipe in pipes], timeout=_POLL_S)
        for pipe in pipes:
            pipe.flush()
        for message in self._commands.skip_withdrawn(self._front_end.receive_all()):
            self._on_front_end(message)
        for message in self._supervisor.receive_all():
            if isinstance(message, messages.Bound):  # of use to a learner that waits for it only
                continue
            if not isinstance(message, messages.Stop):
                raise messages.unexpected_message(message, "the learner")
            return True
        return False

    def _on_front_end(self, message: messages.Message) -> None:
        match message:
            case messages.FrontEndCounts():
                self._front_end_counts = message
            case messages.DropCandidate():
                self.evaluations.drop(message.name)
            case messages.Call():
                self._commands.begin(message)
            case messages.Define():
                self._define(message.environment)
            case unexpected:
                raise messages.unexpected_message(unexpected, "the learner")

    def _define(self, environment: EnvironmentSpec) -> None:
        """Builds the learner for the first actor's environment."""
        try:
            self._build(environment, None)
        except ImpalaError as error:
            self._front_end.send(messages.Refused(error.reason, str(error)))

    def _build(self, environment: EnvironmentSpec, checkpoint: Checkpoint | None) -> None:
        if self.learner is not None or self.machine.state is not State.STARTING:
            return
        blocks = self._ends.blocks
        state = self._make_state(environment, checkpoint)
        source = make_source(state, blocks[STORAGE], self.queue)
        learner = Learner(state, source, blocks[WEIGHTS], checkpoint)
        with self._run.written():  # accepted: settings take the place of earlier ones
            write_text_atomic(self._run.config_path, dump_config(self._config))
            write_specs(self._run, environment, state.model_spec)
            self._writer.truncate_after(state.counters.trained_steps)
        self.learner = self._commands.learner = learner
        self._findings = FindingsMaker(environment, state.counters.num_episodes)
        self._start_s = self._last_log_s = self._last_save_s = _now_s()
        self._board.show(device=state.device_name)
        self._saved_steps = state.counters.trained_steps
        self.evaluations.begin()
        self._board.show_metrics(self.evaluations.shown)
        self._checkpoints = self._make_checkpoint_writer(learner)
        self._checkpoints.start()
        if checkpoint is None:
            self._save_now()
        self._start_threads(learner)
        self.machine.move("begin")
        _LOG.info("learning on %s with %s", state.device_name, state.model_spec.name)
        self._front_end.send(learner.make_ready())

    def _make_state(
        self, environment: EnvironmentSpec, checkpoint: Checkpoint | None
    ) -> TrainingState:
        return TrainingState(self._config, environment, checkpoint)

    def _make_checkpoint_writer(self, learner: Learner) -> CheckpointWriter:
        return CheckpointWriter(self.store, self._take_snapshot, learner.history.add)

    def _start_threads(self, learner: Learner) -> None:
        for index in range(self._config.rollout.num_learners):
            thread = LearnerThread(index, learner, self._on_failure)
            self._threads.append(thread)
            thread.start()

    def _on_failure(self, error: Exception) -> None:
        if self._failure is None:
            _LOG.error("a learner thread failed: %s", error, exc_info=error)
            self._failure = error

    def _tick(self) -> None:
        now_s = _now_s()
        if self.learner is not None:
            if now_s - self._last_log_s >= self._config.checkpoint.log_interval_s:
                self._log(now_s)
            num_steps = self.learner.state.counters.trained_steps - self._saved_steps
            if self._config.checkpoint.is_due(now_s - self._last_save_s, num_steps):
                self._note_save_begins()
                self.request_save()
            self._look_for_trouble(self.learner)
            self.evaluations.tick(self.learner, now_s - self._start_s)
        self._commands.tick()
        if self._board.is_due:
            self._send_status()

    def record(self, values: dict[str, float]) -> None:
        """Writes a line of metrics now, with `values` beside the usual ones."""
        self._log(_now_s(), values)

    def record_evaluation(self, values: dict[str, float | None], step: int) -> None:
        """Writes a line of metrics at `step`, and shows the evaluation in the status."""
        self._writer.write(values, step)
        shown = {name: value for name, value in values.items() if name != metrics.TIME_S}
        self._board.show_metrics(shown)
        self._board.show(evaluation_steps=step)

    def tell_status(self) -> None:
        """Sends the front end the present status."""
        self._board.tell_front_end_next()
        self._send_status()

    def _totals(self, learner: Learner, now_s: float) -> dict[str, float]:
        counts = dataclasses.asdict(self._front_end_counts)
        return make_totals(learner.state, counts, now_s - self._start_s)

    def _log(self, now_s: float, more: dict[str, float] | None = None) -> None:
        learner = self.learner
        assert learner is not None
        with learner.update_lock:
            collected = learner.stats.collect(now_s)
            line = collected | self._totals(learner, now_s)
            if (reward_std := learner.state.reward_std) is not None:
                line[metrics.REWARD_STD] = reward_std
        assert self._findings is not None
        findings = self._findings.update(line, learner.state.config.optimizer.max_grad_norm)
        line |= as_metrics(findings)
        self._last_log_s = now_s
        self._board.show_metrics(line)
        self._board.show(findings=tuple(str(finding) for finding in findings))
        if self.machine.state.value == "RUNNING":  # what bounded the run stands when actors leave
            self._board.show(bottleneck=self._bottleneck.update(line, self._front_end_counts.busy))
        self._writer.write(line | (more or {}), int(line[metrics.STEPS]))

    def request_save(self, name: str = "") -> SaveTicket:
        """Requests a checkpoint; see `CheckpointWriter.request`."""
        assert self._checkpoints is not None
        return self._checkpoints.request(name)

    def _save_now(self) -> None:
        """Waits for a checkpoint; a full or broken disk does not end training."""
        self._note_save_begins()
        try:
            self.request_save().wait()
        except CheckpointError as error:
            _LOG.debug("not saved: %s", error)  # the writer logged a warning

    def _note_save_begins(self) -> None:
        assert self.learner is not None
        self._last_save_s = _now_s()
        self._saved_steps = self.learner.state.counters.trained_steps

    def _take_snapshot(self) -> StateSnapshot:
        """Copies the state; called on the checkpoint thread."""
        assert self.learner is not None
        snapshot = self.learner.export(self._buffers)
        snapshot.state["counters"]["wall_time_s"] += _now_s() - self._start_s
        # Intervals count from what was saved, a few updates after the save was asked for.
        self._saved_steps = snapshot.state["counters"]["trained_steps"]
        return snapshot

    def _look_for_trouble(self, learner: Learner) -> None:
        """Moves to PAUSED if updates are held because of a trouble."""
        trouble = learner.health.trouble
        if trouble == self._board.status.trouble:
            return
        self._board.show(trouble=trouble)
        if trouble:
            _LOG.error("%s", trouble)
            if self.machine.state is State.RUNNING:
                self.machine.move("pause")
        self.tell_status()

    def _send_status(self, *, is_last: bool = False) -> None:
        board, alarm = self._board, ""
        if self.learner is not None:
            board.show_metrics(self._totals(self.learner, _now_s()))
            board.show(total_steps=self.learner.state.config.job.total_steps)
        if (checkpoints := self._checkpoints) is not None:
            alarm = checkpoints.alarm
            board.show_checkpoints(checkpoints)
        board.send(self.machine.state.value, alarm, is_last=is_last)

    def _stop(self, reason: str) -> None:
        """Ends in order: admit no more, finish the update, join, save, close."""
        if self.learner is not None:
            self.learner.gate.close()
        self.machine.move("stop")
        if self.learner is not None:
            # The last candidate is announced before the end.
            self.evaluations.tick(self.learner, _now_s() - self._start_s)
        is_judged = self._is_judged(reason)
        self._front_end.send(messages.Drain(reason, is_judged))
        self._send_status()
        self.queue.close()
        deadline_s = _now_s() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.1, deadline_s - _now_s()))
        self._read_last_counts()
        if self.learner is not None and self._checkpoints is not None:
            self._log(_now_s())
            unsaved = self._checkpoints.save_last(_LAST_SAVE_S)
            self._failure = self._failure or unsaved
            self.learner.history.add("end", reason=reason)
            if is_judged:
                self._await_results()
                self._front_end.send(messages.Judged())
            self.evaluations.close()
        self._writer.close()
        self.machine.move("end")
        self._board.show(reason=reason, is_judging=False)
        self._send_status(is_last=True)

    def _read_last_counts(self) -> None:
        """Reads the front end's answer to "drain", if the front end still runs."""
        deadline_s = _now_s() + _LAST_COUNTS_S
        with contextlib.suppress(QueueClosedError):
            while (message := self._front_end.receive(_POLL_S)) is not None:
                for one in self._commands.skip_withdrawn([message]):
                    self._on_front_end(one)
                if _now_s() > deadline_s:
                    return

    def _is_judged(self, reason: str) -> bool:
        """Returns whether to wait for the evaluation of the last weights."""
        wait_s = self._config.evaluation.eval_last_wait_s
        return reason == "finished" and wait_s > 0 and not self.evaluations.is_idle

    def _await_results(self) -> None:
        """Waits until all candidates are judged, nobody is there to, or it must end."""
        deadline_s = _now_s() + self._config.evaluation.eval_last_wait_s
        self._board.show(is_judging=True)
        with contextlib.suppress(QueueClosedError):
            while (
                not self.evaluations.is_idle
                and self._front_end_counts.evaluators > 0
                and _now_s() < deadline_s
            ):
                if self._receive():
                    return
                self._commands.tick()
                if self._board.is_due:
                    self._send_status()


def _now_s() -> float:
    return time.monotonic()
