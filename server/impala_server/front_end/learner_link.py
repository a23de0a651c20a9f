"""The front end's link to the learner process: pipes in, events out.

Owned by the front end's event loop. Turns messages of the learner into state
(`run`, `ended`) and wakes whoever waits for it. When the learner's end of
a pipe closes, the learner is gone and `lost` is set too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import Any

from impala_common.codec.unrolls import UnrollDecoder
from impala_common.config import TrainConfig
from impala_common.errors import (
    ImpalaError,
    LearnerUnavailableError,
    ModelError,
    QueueClosedError,
    UnsupportedSpaceError,
)
from impala_common.rpc.limits import MAX_MESSAGE_BYTES
from impala_common.run.event_history import open_history
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec, UnrollSpec
from impala_rl.v1 import header_pb2, learner_pb2
from impala_server.front_end.data_plane.sessions import SessionTable
from impala_server.front_end.data_plane.transfer_slots import TransferSlots
from impala_server.front_end.data_plane.unroll_intake import UnrollIntake
from impala_server.front_end.data_plane.weights_cache import WeightsCache
from impala_server.front_end.evaluation.evaluation_desk import EvaluationDesk, WaitingCandidate
from impala_server.front_end.learner_calls import LearnerCalls
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.handoff import ControlPipe, HandoffPipe
from impala_server.storage.layout import StorageLayout
from impala_server.storage.shared_block import SharedBlock
from impala_server.storage.weights_block import WeightsReader

_LOG = logging.getLogger(__name__)
_BUILD_TIMEOUT_S = 60.0
_MAX_UNROLL_BYTES = int(0.9 * MAX_MESSAGE_BYTES)  # the rest is for episodes and framing


class OpenRun:
    """All that exists once the learner has been built: specifications, storage, weights."""

    def __init__(
        self,
        message: dict[str, Any],  # Any: JSON
        config: TrainConfig,
        storage: SharedBlock,
        weights: SharedBlock,
        handoff: HandoffPipe,
    ) -> None:
        """Maps what the learner announced as "ready"."""
        self.learner_run_id = int(message["learner_run_id"])
        self.environment = EnvironmentSpec.from_json(message["environment"])
        model = message["model"]
        self.model = ModelSpec(**{**model, "hidden_sizes": tuple(model["hidden_sizes"])})
        state = _read_tensor_specs(message["agent_state"])
        self.weights_specs = _read_tensor_specs(message["weights"])
        rollout, transport = config.rollout, config.transport
        self.unroll = UnrollSpec(rollout.unroll_length, self.environment, state)
        self.max_unrolls_per_message = max(1, min(1024, _MAX_UNROLL_BYTES // self.unroll.num_bytes))
        self.sessions = SessionTable(
            transport.max_actors, config.job.seed, int(message["learner_life"])
        )
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
            int(message["max_policy_lag"]),
            transport.capacity_timeout_s,
            rollout.batch_size,
            self.history,
            self.sessions.note_absurd,
        )

    def header(self) -> header_pb2.LearnerHeader:
        """Returns what every message of the learner says about it."""
        return header_pb2.LearnerHeader(
            learner_run_id=self.learner_run_id,
            policy_version=self.weights.policy_version,
            trained_steps=self.weights.trained_steps,
        )


def _read_tensor_specs(specs: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:  # Any: JSON
    return tuple(TensorSpec(s["name"], tuple(s["shape"]), s["dtype"]) for s in specs)


class LearnerLink:
    """What the front end knows of the learner."""

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
        self.evaluations = EvaluationDesk(
            lambda name: control.send("drop_candidate", name=name), config.evaluation.eval_lease_s
        )
        self.run: OpenRun | None = None
        self.status: dict[str, Any] = {"state": "STARTING"}
        """What the learner said last of itself, about once a second; replaced, never changed."""
        self.heard_s = time.monotonic()  # when that was
        self.drain_reason = learner_pb2.DRAIN_REASON_STOPPING
        self.ended = asyncio.Event()  # the learner drains, or is gone
        self.judged = asyncio.Event()  # and nothing is left to evaluate
        self.lost = asyncio.Event()  # the learner is gone

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listens to both pipes on `loop`."""
        loop.add_reader(self._control.connection.fileno(), self._on_control)
        loop.add_reader(self._handoff.connection.fileno(), self._on_free)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stops listening."""
        for connection in (self._control.connection, self._handoff.connection):
            if not connection.closed:
                loop.remove_reader(connection.fileno())

    def close_history(self) -> None:
        """Ends the history with what became of all unrolls, if one is kept."""
        if self.run is not None:
            self.run.history.add("end", **self.run.intake.balance._asdict())
            self.run.history.close()

    def open_run(self) -> OpenRun:
        """Returns the run.

        Raises:
          LearnerUnavailableError: there is none yet, or it is being taken down.
        """
        self.require_serving()
        if self.run is None:
            raise LearnerUnavailableError("the learner waits for its first actor")
        return self.run

    def require_serving(self) -> None:
        """Raises LearnerUnavailableError if the learner stops, has finished or is gone."""
        if self.ended.is_set():
            is_finished = self.drain_reason == learner_pb2.DRAIN_REASON_FINISHED
            raise LearnerUnavailableError(
                "the run has finished" if is_finished else "the learner is stopping"
            )

    async def define(self, environment: EnvironmentSpec) -> OpenRun:
        """Returns the run, having it built for `environment` if there is none yet.

        Raises:
          UnsupportedSpaceError: the learner cannot train on it; the text says why.
          ModelError: nor with its own network.
        """
        self.require_serving()
        if self.run is None:
            self._require_small(environment)
        if self.run is None and not self._is_defining:
            self._is_defining, self._definition_error = True, None
            self._control.send("define", environment=environment.to_json())
        async with self._changed, asyncio.timeout(_BUILD_TIMEOUT_S):
            await self._changed.wait_for(
                lambda: self.run is not None or self._definition_error or self.lost.is_set()
            )
        if self._definition_error:
            raise self._definition_error
        return self.open_run()

    def _require_small(self, environment: EnvironmentSpec) -> None:
        """Raises UnsupportedSpaceError where not even one unroll would fit into a message."""
        unroll_length = self._config.rollout.unroll_length
        num_bytes = UnrollSpec(unroll_length, environment).num_bytes
        if num_bytes > _MAX_UNROLL_BYTES:
            raise UnsupportedSpaceError(
                f"one unroll of {unroll_length} steps has {num_bytes / 2**20:.0f} MiB, but a "
                f"message has at most {_MAX_UNROLL_BYTES >> 20}: smaller observations or a "
                "smaller --unroll-length"
            )

    def report(self) -> None:
        """Tells the learner what its metrics should say of the front end."""
        if self.run is not None:
            self._control.send_if_room(
                "front_end",
                actors_connected=self.run.sessions.num_connected,
                evaluators=self.evaluations.num_evaluators,
                storage_fill=self.run.intake.storage_fill,
                queued=self.run.intake.balance.queued,
                busy=self._take_busy_share(),
                **dataclasses.asdict(self.run.intake.counts),
            )

    def _take_busy_share(self) -> float:
        """Returns which share of the time since the last call this thread, the loop's, worked."""
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
            while (message := self._control.receive(0.0)) is not None:
                self._handle(message)
        except QueueClosedError:
            self._on_lost()

    def _handle(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "ready":
                self.run = OpenRun(message, self._config, *self._blocks, self._handoff)
                self.evaluations.wake()
            case "refused":
                is_model = message["reason"] == ModelError.reason
                kind = ModelError if is_model else UnsupportedSpaceError
                self._definition_error = kind(f"the learner refuses: {message['text']}")
                self._is_defining = False
            case "status":
                self.status, self.heard_s = message["status"], time.monotonic()
                return
            case "candidate":
                del message["kind"]
                self.evaluations.offer(WaitingCandidate(**message))
                return
            case "answer":
                if "state" in message:  # newer than the last status
                    self.status = {**self.status, "state": message["state"]}
                self.calls.answer(message)
                return
            case "parameters":
                if self.run is not None:
                    self.run.intake.max_policy_lag = message["max_policy_lag"]
                return
            case "drain":
                is_finished = message["reason"] == "finished"
                self.drain_reason = (
                    learner_pb2.DRAIN_REASON_FINISHED
                    if is_finished
                    else learner_pb2.DRAIN_REASON_STOPPING
                )
                self.ended.set()
                if not message.get("is_judged"):
                    self._end_evaluations()
                self.report()  # the last counts, for the last line of metrics
                if self.run is not None:
                    self._spawn(self.run.weights.close())
            case "judged":
                self._end_evaluations()
                return
            case unknown:
                _LOG.warning("unknown message from the learner: %s", unknown)
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
