"""The learner: model, optimizer, storage, weights, and the counters of the run.

Everything that changes here changes under `update_lock`: learner threads hold
it for one update, the controller to take a checkpoint or collect statistics.
Whoever holds it sees weights, optimizer and counters of one and the same
moment.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import threading
import time
from typing import Any

import torch

from impala_common.config import TrainConfig
from impala_common.errors import (
    CheckpointError,
    DeviceMemoryError,
    ImpalaError,
    TrainingDivergedError,
)
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.models.validation import validate_model
from impala_common.models.weights import restore_weights, weights_specs
from impala_common.process.devices import resolve_device
from impala_common.run.checkpoints import Checkpoint
from impala_common.run.event_history import open_history
from impala_common.spec.specs import EnvironmentSpec, UnrollSpec
from impala_server.learner.batch_loader import Batch, BatchLoader
from impala_server.learner.checkpoint_writer import Snapshot
from impala_server.learner.control import UpdateGate
from impala_server.learner.counters import Counters, require_fitting
from impala_server.learner.host_buffers import HostBuffers
from impala_server.learner.learner_health import LearnerHealth
from impala_server.learner.optimizers import (
    compute_learning_rate,
    import_state,
    make_optimizer,
    name_state,
)
from impala_server.learner.parameters import ParameterTable, Value
from impala_server.learner.precision import choose_encoder_dtype
from impala_server.learner.profiles import UpdateProfiler
from impala_server.learner.run_files import load_initial_weights
from impala_server.learner.stats import LearnerStats
from impala_server.learner.update import Updater, UpdateResult
from impala_server.learner.weights_store import WeightsStore
from impala_server.storage.handoff import FullSlot
from impala_server.storage.layout import StorageLayout
from impala_server.storage.shared_block import SharedBlock

_LOG = logging.getLogger(__name__)


class Learner:
    """Makes updates. Built once the environment's specification is known."""

    def __init__(
        self,
        config: TrainConfig,
        environment: EnvironmentSpec,
        storage: SharedBlock,
        weights: SharedBlock,
        checkpoint: Checkpoint | None,
    ) -> None:
        """Builds everything, from `checkpoint` if there is one, and publishes the weights.

        Raises:
          ConfigError: the network does not fit the environment.
          ModelError: an own network cannot be made, or breaks the contract.
          CheckpointError: the checkpoint belongs to another network.
        """
        self.config = config
        self.run_id = secrets.randbits(64)
        self.environment = environment
        self.model_spec = resolve_model_spec(
            config.model, environment, config.loss.reward_normalisation != "none"
        )
        self.update_lock = threading.Lock()
        self.gate = UpdateGate(self.update_lock)
        self.profiler = UpdateProfiler()
        self.parameters = ParameterTable(config)
        self.stats = LearnerStats(time.monotonic())
        self.counters = Counters()
        self.learning_rate = config.optimizer.learning_rate
        self._device = resolve_device(config.job.device)
        self._model = make_model(self.model_spec, environment, config.job.seed).to(self._device)
        if self.model_spec.is_own and self._device.type != "cpu":
            validate_model(self._model, environment)  # on the device that it is to run on
        self.weights_specs = weights_specs(self._model)
        self._optimizer = make_optimizer(config.optimizer, self._model)
        self.encoder_dtype = choose_encoder_dtype(
            config.job, self.model_spec, self._model, environment
        )
        self._updater = Updater(
            config, self._model, self._optimizer, environment.action, self.encoder_dtype
        )
        self.health = LearnerHealth()
        self._candidate: Snapshot | None = None
        if checkpoint is not None:
            self._restore(checkpoint)
            self.counters.learner_life += 1
            self.parameters.restore(checkpoint.state.get("parameters"))
            self._take_over_parameters()
        elif (weights_to_start := load_initial_weights(config)) is not None:
            restore_weights(
                self._model, weights_to_start, config.job.init_model_path, self.model_spec.name
            )
        self.agent_state = self._model.agent_state_specs()
        unroll = UnrollSpec(config.rollout.unroll_length, environment, self.agent_state)
        layout = StorageLayout(unroll, config.rollout.batch_size, config.rollout.num_storage_slots)
        storage.resize(layout.num_bytes)
        self.loader = BatchLoader(layout, storage.map(), self.model_spec, self._device)
        self._weights = WeightsStore(weights, self._model)
        self.history = open_history(
            "learner",
            learner_run_id=self.run_id,
            life=self.counters.learner_life,
            restored=None if checkpoint is None else checkpoint.name,
            version=self.counters.policy_version,
            trained_steps=self.counters.trained_steps,
            num_queued_at_most=layout.num_slots * layout.batch_size,
            unroll_length=config.rollout.unroll_length,
        )
        self._publish()

    @property
    def model(self) -> AgentModel:
        """The live network; changes under the update lock."""
        return self._model

    @property
    def device_name(self) -> str:
        """The learner's device, for people."""
        if self._device.type == "cuda":
            return f"{self._device} ({torch.cuda.get_device_name(self._device)})"
        return str(self._device)

    @property
    def reward_std(self) -> float | None:
        """What rewards are divided by; None where they are not. To be read under the lock."""
        std = self._updater.reward_std
        return None if std is None else float(std)

    @property
    def is_finished(self) -> bool:
        """Whether the run has reached its last step."""
        return self.counters.trained_steps >= self.config.job.total_steps

    def train(self, full: FullSlot, batch: Batch, wait_s: float, load_s: float = 0.0) -> bool:
        """Makes one update on a batch, or drops it if the run has finished. Takes the lock.

        Waits while updates are paused; a batch is dropped that still waits when the learner ends.

        Args:
          full: what came with the batch.
          batch: the batch, on the learner's device.
          wait_s: how long the calling thread waited for it.
          load_s: how long it then took to make the batch.

        Returns:
          Whether the batch was trained on.

        Raises:
          TrainingDivergedError: too many updates in a row were not finite, and it is to end then.
          DeviceMemoryError: no memory for the update; likewise.
        """
        with self.update_lock:
            if not self.gate.pass_through() or self.is_finished:
                self._drop(full, "the run ends")
                return False
            with self.profiler.record():
                return self._update(full, batch, wait_s, load_s)

    def _update(self, full: FullSlot, batch: Batch, wait_s: float, load_s: float) -> bool:
        counters = self.counters
        start_s = time.perf_counter()
        self.learning_rate = compute_learning_rate(
            self.config.optimizer, counters.trained_steps, self.config.job.total_steps
        )
        try:
            result = self._updater.apply(batch, self.learning_rate)
        except DeviceMemoryError as error:
            self._drop(full, "no memory for the update")
            self._give_up(error)
            return False
        if not result.is_applied:
            self._skip(full, result)
            return False
        self.health.num_in_a_row = 0
        version = counters.policy_version
        counters.policy_version += 1
        counters.trained_steps += batch.num_steps
        counters.trained_unrolls += self.config.rollout.batch_size
        counters.num_episodes += len(full.episodes)
        self._record(
            "trained",
            full,
            version=counters.policy_version,
            steps=batch.num_steps,
            trained_steps=counters.trained_steps,
        )
        if (
            counters.policy_version % self.config.transport.publish_interval_updates == 0
            or self.is_finished
        ):
            self._publish()
        self._set_candidate_aside(batch.num_steps)
        update_s = time.perf_counter() - start_s
        self.stats.add(full, batch, result, version, wait_s, load_s, update_s)
        return True

    def _record(self, event: str, full: FullSlot, **fields: Any) -> None:  # Any: JSON
        """Records what became of a batch, unroll by unroll, where a history is kept."""
        if self.history.is_on:
            records = self.loader.describe(full.slot, self.history.has_rows)
            self.history.add(event, **fields, unrolls=records)

    def resume(self) -> None:
        """Lets updates through again after a pause. Takes the lock.

        Raises:
          IllegalTransitionError: the weights are damaged.
        """
        with self.update_lock:
            self.health.require_usable_weights()
            self.health.recover()
        self.gate.open()

    def set_parameter(self, name: str, text: str) -> Value:
        """Sets a parameter for all further updates; returns its value before. Takes the lock.

        Raises:
          NotFoundError, InvalidRequestError: see `ParameterTable.set`; nothing has changed.
        """
        with self.update_lock:
            before = self.parameters.set(name, text, self.counters.trained_steps)
            self._take_over_parameters()
            return before

    def roll_back(self, checkpoint: Checkpoint) -> int:
        """Goes back to a checkpoint; returns the agent steps before. Takes the lock.

        Weights, optimizer, RNG, steps, unrolls and episodes are those of the checkpoint;
        policy_version goes on upwards, and what counts mishaps and time stays.

        Raises:
          CheckpointError: it is of another network; nothing has changed.
        """
        with self.update_lock:
            require_fitting(checkpoint, self._model.state_dict())
            now = self.counters
            self._optimizer.state.clear()
            self._restore(checkpoint)
            then, self.counters = self.counters, now
            steps_before = now.trained_steps
            now.trained_steps = then.trained_steps
            now.trained_unrolls = then.trained_unrolls
            now.num_episodes = then.num_episodes
            now.policy_version += 1
            self.health.recover()
            self.health.damage = ""
            self._publish()
            self.history.add(
                "rollback",
                name=checkpoint.name,
                version=now.policy_version,
                trained_steps=now.trained_steps,
            )
            return steps_before

    def export(self, buffers: HostBuffers | None = None) -> Snapshot:
        """Returns all that a checkpoint holds, copied. Takes the lock.

        Args:
          buffers: where tensors are copied to; None: fresh memory.

        Raises:
          CheckpointWriteError: the weights are damaged: no checkpoint is to hold them.
        """
        with self.update_lock:
            self.health.require_sound_weights()
            return self._copy(buffers or HostBuffers())

    def take_candidate(self) -> Snapshot | None:
        """Returns what was set aside for evaluation since the last call, the newest only."""
        if self._candidate is None:  # without the lock: seen the next time
            return None
        with self.update_lock:
            candidate, self._candidate = self._candidate, None
            return candidate

    def _set_candidate_aside(self, num_steps: int) -> None:
        """Copies everything where `num_steps` steps crossed the interval, or end the run."""
        interval, steps = self.config.evaluation.eval_interval_steps, self.counters.trained_steps
        if interval and (steps // interval > (steps - num_steps) // interval or self.is_finished):
            self._candidate = self._copy(HostBuffers())

    def _copy(self, buffers: HostBuffers) -> Snapshot:
        """Copies everything into `buffers`. The caller holds the lock."""
        tensors = buffers.copy(
            {
                "weights": {
                    name: value.detach() for name, value in self._model.state_dict().items()
                },
                "optimizer": name_state(self._optimizer, self._model),
                "rng": {"torch_cpu": torch.get_rng_state()},
            }
        )
        state = {
            "counters": dataclasses.asdict(self.counters),
            "learning_rate": self.learning_rate,
            "environment": self.environment.to_json(),
            "model": dataclasses.asdict(self.model_spec),
            "optimizer": self.config.optimizer.optimizer,
            "parameters": self.parameters.export(),
            "settings": dataclasses.asdict(self.config),
        }
        return Snapshot(tensors, state)

    def _restore(self, checkpoint: Checkpoint) -> None:
        groups, state = checkpoint.tensors, checkpoint.state
        try:
            self.counters = Counters(**state["counters"])
            saved_optimizer = state["optimizer"]
            weights = groups["weights"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"checkpoint {checkpoint.name} was not written by a learner: {error!r}"
            ) from error
        restore_weights(self._model, weights, checkpoint.name, self.model_spec.name)
        if saved_optimizer == self.config.optimizer.optimizer:
            import_state(self._optimizer, self._model, groups.get("optimizer", {}))
        else:
            _LOG.warning("optimizer changed from %s: its state starts anew", saved_optimizer)
        if "torch_cpu" in groups.get("rng", {}):
            torch.set_rng_state(torch.from_numpy(groups["rng"]["torch_cpu"]))

    def _take_over_parameters(self) -> None:
        self.config = self.parameters.config
        self._updater.configure(self.config)

    def _publish(self) -> None:
        self._weights.publish(self.counters.policy_version, self.counters.trained_steps)
        self.history.add("weights", version=self.counters.policy_version)

    def _drop(self, full: FullSlot, reason: str) -> None:
        self.counters.dropped_unrolls += self.config.rollout.batch_size
        self._record("dropped", full, reason=reason)

    def _skip(self, full: FullSlot, result: UpdateResult) -> None:
        """Counts a batch that was not trained on; gives up after too many, or for damage."""
        health, limit = self.health, self.config.optimizer.max_nonfinite_updates
        self.counters.skipped_updates += 1
        health.num_in_a_row += 1
        self._drop(full, result.damage or "loss or gradient not finite")
        if result.damage:
            health.damage = result.damage
            self._give_up(TrainingDivergedError(f"{result.damage}; they were not published"))
            return
        _LOG.warning(
            "update skipped: loss %g, gradient norm %g (%d in a row)",
            result.values[0],
            result.values[-1],
            health.num_in_a_row,
        )
        if health.num_in_a_row >= limit:
            self._give_up(
                TrainingDivergedError(
                    f"{limit} updates in a row had a loss or gradient that was not finite; the "
                    "last good weights are kept. Try a smaller --learning-rate, reward clipping, "
                    "or a smaller --max-grad-norm"
                )
            )

    def _give_up(self, error: ImpalaError) -> None:
        """Shuts the gate until an administrator opens it, or raises `error`."""
        self.health.give_up(error, self.config.optimizer)
        self.gate.hold()
