"""The front end's link to the learner process: pipes in, events out.

Owned by the front end's event loop. Turns messages of the learner into state (`run`, `ended`) and
wakes the tasks that wait for it. When the learner's end of
a pipe closes, the learner is gone and `lost` is set too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from typing import Any

from impala_common.codec.unrolls import UnrollDecoder
from impala_common.config import TrainConfig
from impala_common.errors import (
    ImpalaError,
    LearnerUnavailableError,
    MessageError,
    ModelError,
    QueueClosedError,
    RunFinishedError,
    SpecMismatchError,
    StaleSessionError,
    UnsupportedSpaceError,
)
from impala_common.rpc.limits import MAX_UNROLL_BYTES
from impala_common.run.event_history import open_history
from impala_common.spec.specs import EnvironmentSpec, UnrollSpec, validate_same_environment
from impala_rl.v1 import header_pb2, learner_pb2
from impala_server.front_end.data_plane.rank_table import RankTable
from impala_server.front_end.data_plane.sessions import SessionTable
from impala_server.front_end.data_plane.transfer_slots import TransferSlots
from impala_server.front_end.data_plane.unroll_intake import UnrollIntake
from impala_server.front_end.data_plane.weights_cache import WeightsCache
from impala_server.front_end.evaluation.evaluation_desk import EvaluationDesk, WaitingCandidate
from impala_server.front_end.learner_calls import LearnerCalls
from impala_server.messages import (
    Answer,
    CallFailed,
    CandidateReady,
    Define,
    Drain,
    DropCandidate,
    FrontEndCounts,
    Judged,
    LearnerStatus,
    Message,
    PolicyLagSet,
    RanksNews,
    Ready,
    Refused,
    StatusNews,
    unexpected_message,
)
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.control_pipe import ControlPipe
from impala_server.storage.frame_pipe import FramePipe
from impala_server.storage.handoff import HandoffPipe
from impala_server.storage.layout import StorageLayout
from impala_server.storage.shared_block import SharedBlock
from impala_server.storage.weights_block import WeightsReader

_LOG = logging.getLogger(__name__)
_BUILD_TIMEOUT_S = 60.0


class OpenRun:
    """Specifications, storage and weights; they exist once the learner has been built."""

    def __init__(
        self,
        ready: Ready,
        config: TrainConfig,
        storage: SharedBlock,
        weights: SharedBlock,
        handoff: HandoffPipe,
    ) -> None:
        """Maps what the learner announced."""
        self.learner_run_id = ready.learner_run_id
        self.environment = ready.environment
        self.model = ready.model
        self.weights_specs = ready.weights
        rollout, transport = config.rollout, config.transport
        self.unroll = UnrollSpec(rollout.unroll_length, self.environment, ready.agent_state)
        self.max_unrolls_per_message = max(1, min(1024, MAX_UNROLL_BYTES // self.unroll.num_bytes))
        self.sessions = SessionTable(transport.max_actors, config.job.seed, ready.learner_life)
        self.weights = WeightsCache(WeightsReader(weights.map()))
        self.history = open_history("front_end", learner_run_id=self.learner_run_id)
        self.transfers = TransferSlots(sum(spec.num_bytes for spec in self.weights_specs))
        layout = StorageLayout(self.unroll, rollout.batch_size, rollout.num_storage_slots)
        self.storage_bytes = layout.num_bytes
        self.intake = UnrollIntake(
            UnrollDecoder(self.unroll, self.max_unrolls_per_message),
            BatchSlots(layout, storage.map()),
            handoff,
            lambda: self.weights.policy_version,
            ready.max_policy_lag,
            transport.capacity_timeout_s,
            rollout.batch_size,
            self.history,
            self.sessions.note_absurd,
        )

    def header(self) -> header_pb2.LearnerHeader:
        """Returns the header of every response: the learner's life and version."""
        return header_pb2.LearnerHeader(
            learner_run_id=self.learner_run_id,
            policy_version=self.weights.policy_version,
            trained_steps=self.weights.trained_steps,
        )


class LearnerLink:
    """State of the learner as its messages report it."""

    def __init__(
        self,
        config: TrainConfig,
        control: ControlPipe,
        handoff: HandoffPipe,
        storage: SharedBlock,
        weights: SharedBlock,
    ) -> None:
        """Takes over this side's ends of the pipes; `attach` starts listening."""
        self._config = config
        self._control = control
        self._handoff = handoff
        self._blocks = (storage, weights)
        self._changed = asyncio.Condition()
        self._definition_error: ImpalaError | None = None
        self._is_defining = False
        self._background: set[asyncio.Task[None]] = set()
        self._busy_marks = (time.monotonic(), time.thread_time())
        self.calls = LearnerCalls(control.send)
        self.evaluations = EvaluationDesk(lambda name: control.send(DropCandidate(name)))
        self.ranks = RankTable()
        self.run: OpenRun | None = None
        self.status = LearnerStatus(state="STARTING")
        """What the learner said last of itself, about once a second; replaced, never changed."""
        self.heard_s = time.monotonic()  # when that was
        self.drain_reason = learner_pb2.DRAIN_REASON_STOPPING
        self.ended = asyncio.Event()  # the learner drains, or is gone
        self.is_notice = False  # no learner: actors are told that the run has finished
        self.judged = asyncio.Event()  # ended, and no candidate waits for results
        self.lost = asyncio.Event()  # the learner is gone
        self.failure: MessageError | None = None  # what it sent that no learner sends

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listens to both pipes on `loop`, which also sends on what the learner has no room for."""
        loop.add_reader(self._control.fileno(), self._on_control)
        loop.add_reader(self._handoff.fileno(), self._on_free)
        for frames in (self._control.frames, self._handoff.frames):
            frames.on_unsent = functools.partial(
                loop.add_writer, frames.fileno(), _flush, loop, frames
            )

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stops listening."""
        for frames in (self._control.frames, self._handoff.frames):
            frames.on_unsent = None
            if frames.fileno() >= 0:
                loop.remove_reader(frames.fileno())
                loop.remove_writer(frames.fileno())

    def close_history(self) -> None:
        """Ends the event history, if there is one, with the counts of all unrolls."""
        if self.run is not None:
            self.run.history.add("end", **self.run.intake.balance._asdict())
            self.run.history.close()

    def open_run(self) -> OpenRun:
        """Returns the run.

        Raises:
          LearnerUnavailableError: there is no run yet, or it is ending.
        """
        self.require_serving()
        if self.run is None:
            raise LearnerUnavailableError("the learner waits for its first actor")
        return self.run

    def open_run_of(self, learner_run_id: int) -> OpenRun:
        """Returns the run, for a client that knows this life of the learner.

        Raises:
          StaleSessionError: it knows another one. Without a run that is so, too: clients of an
            earlier run have to register, or this one would wait for its first actor for ever.
          LearnerUnavailableError: the run is ending.
        """
        self.require_serving()
        if self.run is None or self.run.learner_run_id != learner_run_id:
            raise StaleSessionError("the learner was restarted: register again")
        return self.run

    def require_serving(self) -> None:
        """Raises RunFinishedError if the run has finished.

        Raises:
          LearnerUnavailableError: the learner stops or is gone.
        """
        if self.ended.is_set():
            if self.drain_reason == learner_pb2.DRAIN_REASON_FINISHED:
                raise RunFinishedError("the run has finished")
            raise LearnerUnavailableError("the learner is stopping")

    async def define(self, environment: EnvironmentSpec) -> OpenRun:
        """Returns the run; the first call has the learner build it for `environment`.

        Raises:
          UnsupportedSpaceError: the learner cannot train on it; the text says why.
          ModelError: nor with its own network.
          LearnerUnavailableError: it does not answer, or is being taken down.
        """
        self.require_serving()
        if self.run is None:
            self._require_small(environment)
        if self.run is None and not self._is_defining:
            self._is_defining, self._definition_error = True, None
            self._control.send(Define(environment))
        try:
            async with asyncio.timeout(_BUILD_TIMEOUT_S), self._changed:
                await self._changed.wait_for(
                    lambda: self.run is not None or self._definition_error or self.lost.is_set()
                )
        except TimeoutError:
            raise LearnerUnavailableError(
                f"the learner has not built its network for {_BUILD_TIMEOUT_S:g} s"
            ) from None
        if self._definition_error:
            raise self._definition_error
        return self.open_run()

    def require_environment(self, run: OpenRun, environment: EnvironmentSpec) -> None:
        """Raises SpecMismatchError, naming the run's environment, unless this one is the same."""
        try:
            validate_same_environment(run.environment, environment)
        except SpecMismatchError as error:
            env = self._config.environment.env
            if not env:
                raise
            expected = f"{error.expected} (this learner trains {env})"
            raise SpecMismatchError(error.field, expected, error.actual) from error

    def _require_small(self, environment: EnvironmentSpec) -> None:
        """Raises UnsupportedSpaceError if one unroll is too large for a message."""
        unroll_length = self._config.rollout.unroll_length
        num_bytes = UnrollSpec(unroll_length, environment).num_bytes
        if num_bytes > MAX_UNROLL_BYTES:
            raise UnsupportedSpaceError(
                f"one unroll of {unroll_length} steps has {num_bytes / 2**20:.0f} MiB, but a "
                f"message has at most {MAX_UNROLL_BYTES >> 20}: smaller observations or a "
                "smaller --unroll-length"
            )

    def report(self) -> None:
        """Sends the learner the front end's counts, for its metrics."""
        if self.run is not None:
            counts = FrontEndCounts(
                actors_connected=self.run.sessions.num_connected,
                evaluators=self.evaluations.num_evaluators,
                storage_fill=self.run.intake.storage_fill,
                queued=self.run.intake.balance.queued,
                busy=self._take_busy_share(),
                **dataclasses.asdict(self.run.intake.counts),
            )
            self._control.send_if_room(counts)

    def _take_busy_share(self) -> float:
        """Returns the share of time since the last call that the event loop was busy."""
        (then_s, then_busy_s), now = self._busy_marks, (time.monotonic(), time.thread_time())
        self._busy_marks = now
        return (now[1] - then_busy_s) / max(now[0] - then_s, 1e-3)

    def _on_free(self) -> None:
        try:
            while (freed := self._handoff.receive_free()) is not None:
                if self.run is not None:
                    self.run.intake.release(freed)
        except QueueClosedError:
            self._on_lost()
            return
        if self.run is not None:
            self._spawn(self.run.weights.notify())

    def _on_control(self) -> None:
        try:
            for message in self._control.receive_all():
                self._handle(message)
        except QueueClosedError:
            self._on_lost()
        except MessageError as error:
            self.failure = error
            self._on_lost()

    def _handle(self, message: Message) -> None:
        match message:
            case Ready():
                self.run = OpenRun(message, self._config, *self._blocks, self._handoff)
                self.evaluations.wake()
            case Refused():
                is_model = message.reason == ModelError.reason
                kind = ModelError if is_model else UnsupportedSpaceError
                self._definition_error = kind(f"the learner refuses: {message.text}")
                self._is_defining = False
            case StatusNews():
                self.status, self.heard_s = message.status, time.monotonic()
                return
            case CandidateReady():
                self.evaluations.offer(
                    WaitingCandidate(message.name, message.trained_steps, message.policy_version)
                )
                return
            case Answer():  # its state is newer than that of the last status
                self.status = dataclasses.replace(self.status, state=message.state)
                self.calls.answer(message)
                return
            case CallFailed():
                self.calls.answer(message)
                return
            case PolicyLagSet():
                if self.run is not None:
                    self.run.intake.max_policy_lag = message.max_policy_lag
                return
            case RanksNews():
                self.ranks.update(message)
                return
            case Drain():
                self.drain_reason = (
                    learner_pb2.DRAIN_REASON_FINISHED
                    if message.reason == "finished"
                    else learner_pb2.DRAIN_REASON_STOPPING
                )
                self.is_notice = message.is_notice
                self.ended.set()
                if not message.is_judged:
                    self._end_evaluations()
                self.report()  # the last counts, for the last line of metrics
                if self.run is not None:
                    self._spawn(self.run.weights.close())
            case Judged():
                self._end_evaluations()
                return
            case unexpected:
                raise unexpected_message(unexpected, "the front end")
        self._spawn(self._wake())

    def _on_lost(self) -> None:
        self.detach(asyncio.get_running_loop())
        self.lost.set()
        self.ended.set()
        self.calls.lose()
        self._end_evaluations()
        if self.run is not None:
            self._spawn(self.run.weights.close())
        self._spawn(self._wake())

    def _end_evaluations(self) -> None:
        self.judged.set()
        self.evaluations.wake()

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Any) -> None:  # Any: a coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _flush(loop: asyncio.AbstractEventLoop, frames: FramePipe) -> None:
    """Sends on what waits; called by the loop while the pipe has room."""
    try:
        is_all_sent = frames.flush()
    except QueueClosedError:  # the reader of the pipe says so
        is_all_sent = True
    if is_all_sent:
        loop.remove_writer(frames.fileno())
