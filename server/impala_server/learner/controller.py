"""What the learner process does beside updates: start, watch, log, save, stop.

Runs on the learner process's main thread. Owns the learner threads, the
checkpoint store and the metrics writer. Listens to the supervisor (stop) and
to the front end (the first actor's specification, its counts).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from multiprocessing import connection
from typing import Any

from impala_common.config import TrainConfig
from impala_common.config.checks import is_own_model
from impala_common.errors import (
    CheckpointError,
    ImpalaError,
    QueueClosedError,
)
from impala_common.models.registry import find_maker
from impala_common.run import metrics
from impala_common.run.checkpoints import Checkpoint, CheckpointStore
from impala_common.run.run_directory import RunDirectory, write_json_atomic
from impala_common.spec.specs import EnvironmentSpec
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.bottleneck import BottleneckFinder
from impala_server.learner.checkpoint_writer import CheckpointWriter, SaveTicket, Snapshot
from impala_server.learner.commands import AdminCommands
from impala_server.learner.control import State, StateMachine
from impala_server.learner.evaluations import Evaluations
from impala_server.learner.host_buffers import HostBuffers
from impala_server.learner.learner import Learner
from impala_server.learner.learner_thread import LearnerThread
from impala_server.learner.run_files import load_run_files
from impala_server.learner.totals import make_totals
from impala_server.metrics_writer import MetricsWriter
from impala_server.storage.process_ends import ProcessEnds

_LOG = logging.getLogger(__name__)
_POLL_S = 0.05
_STATUS_INTERVAL_S = 0.25
_FRONT_END_STATUS_INTERVAL_S = 1.0
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
        self._writer = MetricsWriter(
            run, config.checkpoint.tensorboard, config.checkpoint.wandb_project
        )
        self.queue = BatchQueue(ends.handoff)
        self._threads: list[LearnerThread] = []
        self.learner: Learner | None = None
        self.machine = StateMachine()
        self.evaluations = Evaluations(self, run, config.evaluation)
        self._commands = AdminCommands(self, run)
        self._failure: Exception | None = None
        self._front_end_counts: dict[str, float] = {}
        self._bottleneck = BottleneckFinder(config.rollout.num_learners)
        self._shown: dict[str, Any] = {"checkpoint_failures": 0}  # Any: JSON
        self._start_s = self._last_log_s = self._last_status_s = self._last_save_s = _now_s()
        self._saved_steps = 0
        self._told_front_end_s = _now_s()
        self._buffers = HostBuffers()
        self._checkpoints: CheckpointWriter | None = None
        self._told_front_end_state = ""

    def run(self) -> None:
        """Works until the run has finished, the supervisor says stop, or something fails.

        Raises:
          ImpalaError: what made the learner fail; a last checkpoint is written all the same.
        """
        if is_own_model(self._config.model.model):
            find_maker(self._config.model.model)  # a wrong name is known before any actor comes
        environment, checkpoint = load_run_files(self._run, self.store, self._config)
        if environment is not None:
            self._build(environment, checkpoint)
        reason = self._work()
        self._stop(reason)
        if self._failure is not None:
            raise self._failure

    def _work(self) -> str:
        """Returns why work ended: "finished" or "stopping"."""
        pipes = (self._ends.supervisor, self._ends.control)
        while True:
            connection.wait([pipe.connection for pipe in pipes], timeout=_POLL_S)
            try:
                while (message := self._ends.control.receive(0.0)) is not None:
                    self._on_front_end(message)
                while (message := self._ends.supervisor.receive(0.0)) is not None:
                    if message["kind"] == "stop":
                        return "stopping"
            except QueueClosedError:
                return "stopping"
            if self._failure is not None:
                return "stopping"
            if self.learner is not None and self.learner.is_finished:
                return "finished"
            self._tick()

    def _on_front_end(self, message: dict[str, Any]) -> None:
        match message.pop("kind"):
            case "front_end":
                self._front_end_counts = message
            case "drop_candidate":
                self.evaluations.drop(message["name"])
            case "call":
                self._commands.begin(message)
            case "define":
                environment = EnvironmentSpec.from_json(message["environment"])
                try:
                    self._build(environment, None)
                except ImpalaError as error:
                    self.tell_front_end("refused", reason=error.reason, text=str(error))

    def _build(self, environment: EnvironmentSpec, checkpoint: Checkpoint | None) -> None:
        if self.learner is not None or self.machine.state is not State.STARTING:
            return
        learner = Learner(
            self._config, environment, self._ends.storage, self._ends.weights, checkpoint
        )
        specs = {"environment": environment.to_json(), "model": _as_json(learner.model_spec)}
        write_json_atomic(self._run.specs_path, specs)
        self._writer.truncate_after(learner.counters.trained_steps)
        self.learner = learner
        self._start_s = self._last_log_s = self._last_save_s = _now_s()
        self._shown["device"] = learner.device_name
        self._saved_steps = learner.counters.trained_steps
        self.evaluations.begin()
        self._shown |= self.evaluations.shown
        self._checkpoints = CheckpointWriter(
            self.store,
            self._take_snapshot,
            learner.history.add,
        )
        self._checkpoints.start()
        if checkpoint is None:
            self._save_now()
        for index in range(self._config.rollout.num_learners):
            thread = LearnerThread(index, learner, self.queue, self._on_failure)
            self._threads.append(thread)
            thread.start()
        self.machine.move("begin")
        _LOG.info("learning on %s with %s", learner.device_name, learner.model_spec.name)
        self._ends.control.send(
            "ready",
            learner_run_id=learner.run_id,
            learner_life=learner.counters.learner_life,
            agent_state=[_as_json(state) for state in learner.agent_state],
            weights=[_as_json(spec) for spec in learner.weights_specs],
            max_policy_lag=learner.config.rollout.max_policy_lag,
            **specs,
        )

    def _on_failure(self, error: Exception) -> None:
        if self._failure is None:
            _LOG.error("a learner thread failed: %s", error, exc_info=error)
            self._failure = error

    def _tick(self) -> None:
        now_s = _now_s()
        if self.learner is not None:
            if now_s - self._last_log_s >= self._config.checkpoint.log_interval_s:
                self._log(now_s)
            if self._is_checkpoint_due(self.learner, now_s):
                self._note_save_begins()
                self.request_save()
            self._look_for_trouble(self.learner)
            self.evaluations.tick()
        self._commands.tick()
        if now_s - self._last_status_s >= _STATUS_INTERVAL_S:
            self._send_status()

    def _is_checkpoint_due(self, learner: Learner, now_s: float) -> bool:
        settings = self._config.checkpoint
        interval_steps = settings.checkpoint_interval_steps
        return now_s - self._last_save_s >= settings.checkpoint_interval_s or (
            interval_steps > 0
            and learner.counters.trained_steps - self._saved_steps >= interval_steps
        )

    def record(self, values: dict[str, float]) -> None:
        """Writes a line of metrics now, with `values` beside the usual ones."""
        self._log(_now_s(), values)

    def record_evaluation(self, values: dict[str, float | None], step: int) -> None:
        """Writes a line of metrics of `step`, and shows in the status how the evaluation went."""
        self._writer.write(values, step)
        self._shown |= {name: value for name, value in values.items() if name != metrics.TIME_S}
        self._shown["evaluation_steps"] = step

    def tell_front_end(self, kind: str, **fields: Any) -> None:  # Any: JSON
        """Sends the front end a message."""
        self._ends.control.send(kind, **fields)

    def tell_status(self) -> None:
        """Sends the front end the status as it is now."""
        self._told_front_end_state = ""
        self._send_status()

    def tell_supervisor(self, kind: str, **fields: Any) -> None:  # Any: JSON
        """Sends the supervisor a message."""
        self._ends.supervisor.send(kind, **fields)

    def _log(self, now_s: float, more: dict[str, float] | None = None) -> None:
        learner = self.learner
        assert learner is not None
        with learner.update_lock:
            collected = learner.stats.collect(now_s)
            line = collected | make_totals(learner, self._front_end_counts, now_s - self._start_s)
            if (reward_std := learner.reward_std) is not None:
                line[metrics.REWARD_STD] = reward_std
        self._last_log_s = now_s
        self._shown |= line
        if self.machine.state.value == "RUNNING":  # what bounded the run stands when actors leave
            busy = self._front_end_counts.get("busy", 0.0)
            self._shown["bottleneck"] = self._bottleneck.update(line, busy)
        self._writer.write(line | (more or {}), int(line[metrics.STEPS]))

    def request_save(self, name: str = "") -> SaveTicket:
        """Has the state written; see `CheckpointWriter.request`."""
        assert self._checkpoints is not None
        return self._checkpoints.request(name)

    def _save_now(self) -> None:
        """Waits for a checkpoint; a disk that refuses does not end training."""
        self._note_save_begins()
        try:
            self.request_save().wait()
        except CheckpointError as error:
            _LOG.debug("not saved: %s", error)  # the writer has said so

    def _note_save_begins(self) -> None:
        assert self.learner is not None
        self._last_save_s = _now_s()
        self._saved_steps = self.learner.counters.trained_steps

    def _take_snapshot(self) -> Snapshot:
        """Copies the state; called on the checkpoint thread."""
        assert self.learner is not None
        snapshot = self.learner.export(self._buffers)
        self.count_time(snapshot.state)
        return snapshot

    def _look_for_trouble(self, learner: Learner) -> None:
        """Moves to PAUSED where updates are held because something is wrong."""
        trouble = learner.health.trouble
        if trouble == self._shown.get("trouble", ""):
            return
        self._shown["trouble"] = trouble
        if trouble:
            _LOG.error("%s", trouble)
            if self.machine.state is State.RUNNING:
                self.machine.move("pause")
        self.tell_status()

    def forget_best(self) -> None:
        """Takes the best evaluation out of the status."""
        for name in (metrics.EVALUATION_BEST, metrics.EVALUATION_BEST_STEPS):
            self._shown.pop(name, None)

    def count_time(self, state: dict[str, Any]) -> None:
        """Adds the time of this life to the counters in a checkpoint's state."""
        state["counters"]["wall_time_s"] += _now_s() - self._start_s

    def _send_status(self, **more: Any) -> None:  # Any: JSON
        state = self.machine.state.value
        now_s = self._last_status_s = _now_s()
        if self.learner is not None:
            self._shown |= make_totals(self.learner, self._front_end_counts, now_s - self._start_s)
            self._shown["total_steps"] = self.learner.config.job.total_steps
        if (checkpoints := self._checkpoints) is not None:
            self._shown["last_checkpoint_age_s"] = self._last_status_s - checkpoints.last_s
            self._shown["checkpoint_failures"] = checkpoints.num_failures
            self._shown["checkpoints_unreadable"] = checkpoints.num_unreadable
            if checkpoints.last.name:
                self._shown["last_checkpoint"] = checkpoints.last.name
        status = {**self._shown, "state": state, **more}
        if checkpoints is not None and checkpoints.alarm:
            troubles = (self._shown.get("trouble", ""), checkpoints.alarm)
            status["trouble"] = "; ".join(filter(None, troubles))
        # The last one must arrive; others are replaced by the next. A supervisor that waits for a
        # terminal nobody reads must not stop the updates.
        tell = self._ends.supervisor.send if more else self._ends.supervisor.send_if_room
        tell("status", status=status)
        is_news = state != self._told_front_end_state
        if is_news or now_s - self._told_front_end_s >= _FRONT_END_STATUS_INTERVAL_S:
            self._told_front_end_s, self._told_front_end_state = now_s, state
            self._ends.control.send_if_room("status", status=status)

    def _stop(self, reason: str) -> None:
        """Ends in order: admit no more, finish the update, join, save, close."""
        if self.learner is not None:
            self.learner.gate.close()
        self.machine.move("stop")
        if self.learner is not None:
            self.evaluations.tick()  # the last candidate is announced before the end
        is_judged = self._is_judged(reason)
        self._ends.control.send("drain", reason=reason, is_judged=is_judged)
        self._send_status()
        self.queue.close()
        deadline_s = _now_s() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.1, deadline_s - _now_s()))
        self._read_last_counts()
        if self.learner is not None and self._checkpoints is not None:
            self._log(_now_s())
            self._checkpoints.request()
            self._checkpoints.close(_LAST_SAVE_S)
            self.learner.history.add("end", reason=reason)
            if is_judged:
                self._await_verdict()
                self._ends.control.send("judged")
            self.evaluations.close()
        self._shown.pop("is_judging", None)
        self._writer.close()
        self.machine.move("end")
        self._send_status(reason=reason)

    def _read_last_counts(self) -> None:
        """Reads what the front end answered to "drain", if it is still there."""
        deadline_s = _now_s() + _LAST_COUNTS_S
        with contextlib.suppress(QueueClosedError):
            while (message := self._ends.control.receive(_POLL_S)) is not None:
                self._on_front_end(message)
                if _now_s() > deadline_s:
                    return

    def _is_judged(self, reason: str) -> bool:
        """Whether the run ends with a verdict on its last weights, if an evaluator is there."""
        wait_s = self._config.evaluation.eval_last_wait_s
        return reason == "finished" and wait_s > 0 and not self.evaluations.is_idle

    def _await_verdict(self) -> None:
        """Waits until all candidates are judged, nobody is there to, or it must end."""
        pipes = (self._ends.supervisor, self._ends.control)
        deadline_s = _now_s() + self._config.evaluation.eval_last_wait_s
        self._shown["is_judging"] = True
        with contextlib.suppress(QueueClosedError):
            while (
                not self.evaluations.is_idle
                and self._front_end_counts.get("evaluators", 0) > 0
                and _now_s() < deadline_s
            ):
                connection.wait([pipe.connection for pipe in pipes], timeout=_POLL_S)
                while (message := self._ends.control.receive(0.0)) is not None:
                    self._on_front_end(message)
                while (message := self._ends.supervisor.receive(0.0)) is not None:
                    if message["kind"] == "stop":
                        return
                self._commands.tick()
                if _now_s() - self._last_status_s >= _STATUS_INTERVAL_S:
                    self._send_status()


def _as_json(value: Any) -> dict[str, Any]:  # Any: a dataclass instance; JSON
    return dataclasses.asdict(value)


def _now_s() -> float:
    return time.monotonic()
