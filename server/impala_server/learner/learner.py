"""The learner: applies batches of a source to the training state and publishes the weights.

Everything that changes here changes under `update_lock`: learner threads hold
it for one update, the controller to take a checkpoint or collect statistics.
So the holder of the lock sees weights, optimizer and counters of the same moment.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

from impala_common.errors import DeviceMemoryError, ImpalaError
from impala_common.models.weights import weights_specs
from impala_common.run.checkpoints import Checkpoint
from impala_common.run.event_history import open_history
from impala_server.learner.batch_source import BatchSource, TakenBatch
from impala_server.learner.changes import Changes
from impala_server.learner.control import UpdateGate
from impala_server.learner.host_buffers import HostBuffers
from impala_server.learner.learner_health import LearnerHealth
from impala_server.learner.parameters import Value
from impala_server.learner.profiles import UpdateProfiler
from impala_server.learner.stats import LearnerStats
from impala_server.learner.training_state import StateSnapshot, TrainingState
from impala_server.learner.weights_store import WeightsStore
from impala_server.messages import Ready
from impala_server.storage.shared_block import SharedBlock


class Learner:
    """Makes updates. Built once the environment's specification is known.

    Attributes:
      state: what training changes; used under `update_lock`.
      source: where batches come from.
      run_id: random, of this life of the learner.
      update_lock: held during each update.
      gate: lets updates through, or holds them back.
      profiler: records updates where an administrator asks for it.
      stats: sums since the last line of metrics; used under `update_lock`.
      health: failures in a row, and the reason why the learner waits.
      history: the event history.
      changes: is told what an administrator changes; the rank loop tells the other ranks.
    """

    def __init__(
        self,
        state: TrainingState,
        source: BatchSource,
        weights: SharedBlock,
        restored: Checkpoint | None = None,
    ) -> None:
        """Publishes the weights of `state`.

        Args:
          state: what to train; a life of the learner is counted there if it was `restored`.
          source: where batches come from.
          weights: shared block for the published weights; gets its size here.
          restored: checkpoint that `state` was built from.
        """
        self.state = state
        self.source = source
        self.run_id = secrets.randbits(64)
        self.update_lock = threading.Lock()
        self.gate = UpdateGate(self.update_lock)
        self.profiler = UpdateProfiler()
        self.stats = LearnerStats(time.monotonic())
        self.health = LearnerHealth()
        self.changes = Changes()
        self._candidate: StateSnapshot | None = None
        if restored is not None:
            state.counters.learner_life += 1
        self._weights = WeightsStore(weights, state.model)
        rollout = state.config.rollout
        self.history = open_history(
            "learner",
            learner_run_id=self.run_id,
            life=state.counters.learner_life,
            restored=None if restored is None else restored.name,
            version=state.counters.policy_version,
            trained_steps=state.counters.trained_steps,
            num_queued_at_most=rollout.num_storage_slots * rollout.batch_size,
            unroll_length=rollout.unroll_length,
        )
        self._publish()

    def make_ready(self) -> Ready:
        """Returns what the front end must know of this learner."""
        state = self.state
        return Ready(
            learner_run_id=self.run_id,
            learner_life=state.counters.learner_life,
            environment=state.environment,
            model=state.model_spec,
            agent_state=tuple(state.model.agent_state_specs()),
            weights=tuple(weights_specs(state.model)),
            max_policy_lag=state.config.rollout.max_policy_lag,
        )

    def train(self, taken: TakenBatch) -> bool:
        """Makes one update on a batch, or drops the batch if the run has finished. Takes the lock.

        Waits while updates are paused. If the learner ends meanwhile, the batch is dropped.

        Returns:
          Whether the batch was taken into training.

        Raises:
          TrainingDivergedError: too many updates in a row were not finite, and the settings say
          end.
          DeviceMemoryError: no memory for the update, and the settings say end.
        """
        with self.update_lock:
            if not self.gate.pass_through() or self.state.is_finished:
                self.drop(taken, "the run ends")
                return False
            return self.make_update(taken)

    def make_update(self, taken: TakenBatch) -> bool:
        """Makes one update on a batch, as `train` does. To be called under the update lock."""
        with self.profiler.record():
            return self._update(taken)

    def _update(self, taken: TakenBatch) -> bool:
        state, batch = self.state, taken.batch
        start_s = time.perf_counter()
        version, steps_before = state.counters.policy_version, state.counters.trained_steps
        try:
            result = state.apply(batch, lambda: not self.source.has_waiting())
        except DeviceMemoryError as error:
            self.drop(taken, "no memory for the update")
            if state.has_other_ranks:
                raise  # they wait for this one's part of the update
            self._give_up(error)
            return False
        cause = self.health.note(result, state.config.optimizer)
        if not result.is_applied:
            self.drop(taken, result.damage or "loss or gradient not finite")
            if cause is not None:
                self._give_up(cause)
            return False
        counters = state.counters
        counters.num_episodes += len(taken.episodes)
        self._record(
            "trained",
            taken,
            version=counters.policy_version,
            steps=batch.num_steps,
            trained_steps=counters.trained_steps,
        )
        if (
            counters.policy_version % state.config.transport.publish_interval_updates == 0
            or state.is_finished
        ):
            self._publish()
        num_steps = counters.trained_steps - steps_before
        self._set_candidate_aside(num_steps)
        self.stats.add(taken, result, version, time.perf_counter() - start_s, num_steps)
        return True

    def resume(self) -> None:
        """Lets updates through again after a pause. Takes the lock.

        Raises:
          IllegalTransitionError: the weights are damaged.
        """
        with self.update_lock:
            self.health.require_usable_weights()
            self.health.recover()
            self.changes.note_resume()
        self.gate.open()

    def set_parameter(self, name: str, text: str) -> Value:
        """Sets a parameter for all further updates; returns its value before. Takes the lock.

        Raises:
          NotFoundError, InvalidRequestError: see `ParameterTable.set`; nothing has changed.
        """
        with self.update_lock:
            before = self.state.set_parameter(name, text)
            self.changes.note_parameter(name, text)
            return before

    def roll_back(self, checkpoint: Checkpoint) -> int:
        """Goes back to a checkpoint and publishes it; returns the agent steps before.

        Takes the lock. See `TrainingState.roll_back`.

        Raises:
          CheckpointError: it is of another network; nothing has changed.
        """
        with self.update_lock:
            steps_before = self.go_back(checkpoint)
            self.changes.note_rollback(checkpoint)
            return steps_before

    def go_back(self, checkpoint: Checkpoint) -> int:
        """Goes back to a checkpoint, as `roll_back`. To be called under the update lock.

        Older unrolls kept for replay are forgotten: they may be what made the rollback necessary.
        """
        steps_before = self.state.roll_back(checkpoint)
        self.source.forget_all()
        self.health.recover()
        self.health.damage = ""
        self._publish()
        self.history.add(
            "rollback",
            name=checkpoint.name,
            version=self.state.counters.policy_version,
            trained_steps=self.state.counters.trained_steps,
        )
        return steps_before

    def export(self, buffers: HostBuffers | None = None) -> StateSnapshot:
        """Returns a copy of everything that a checkpoint holds. Takes the lock.

        Args:
          buffers: memory for the copies; None: fresh memory.

        Raises:
          CheckpointWriteError: the weights are damaged; no checkpoint may hold them.
        """
        with self.update_lock:
            self.health.require_sound_weights()
            return self.state.export(buffers)

    def take_candidate(self) -> StateSnapshot | None:
        """Returns the newest candidate copied since the last call, or None."""
        if self._candidate is None:  # read without the lock: a new one is found at the next call
            return None
        with self.update_lock:
            candidate, self._candidate = self._candidate, None
            return candidate

    def _set_candidate_aside(self, num_steps: int) -> None:
        """Copies the state if the last `num_steps` steps crossed the interval or ended the run."""
        state = self.state
        interval = state.config.evaluation.eval_interval_steps
        steps = state.counters.trained_steps
        if interval and (steps // interval > (steps - num_steps) // interval or state.is_finished):
            self._candidate = state.export()

    def _record(self, event: str, taken: TakenBatch, **fields: Any) -> None:  # Any: JSON
        """Records the outcome of each unroll of a batch in the event history."""
        if self.history.is_on and taken.slot >= 0:  # not the stand-in of a rank without a batch
            records = self.source.describe(taken, self.history.has_rows)
            self.history.add(event, **fields, unrolls=records)

    def _publish(self) -> None:
        counters = self.state.counters
        self._weights.publish(counters.policy_version, counters.trained_steps)
        self.history.add("weights", version=counters.policy_version)

    def drop(self, taken: TakenBatch, reason: str) -> None:
        """Counts a batch that is not trained on. To be called under the update lock."""
        self.state.counters.dropped_unrolls += taken.batch.num_unrolls
        self._record("dropped", taken, reason=reason)

    def _give_up(self, error: ImpalaError) -> None:
        """Shuts the gate until an administrator opens it, or raises `error`."""
        self.health.give_up(error, self.state.config.optimizer)
        self.gate.hold()
