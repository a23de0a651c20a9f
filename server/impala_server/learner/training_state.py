"""TrainingState: model, optimizer, counters and random streams, and the update that changes them.

Model, optimizer, running statistics, counters, settable parameters and random
streams. The learner process applies batches of rollout storage to one of these;
the class IMPALA applies its caller's batches to another in the caller's process.
Knows no storage, no published weights, no run ids, no gRPC, and takes no lock:
its owner lets one thread at a time use it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from impala_common.config import TrainConfig
from impala_common.errors import CheckpointError
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.models.validation import validate_model
from impala_common.models.weights import restore_weights
from impala_common.process.devices import resolve_device
from impala_common.run.checkpoints import Checkpoint, Tensors
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, UnrollSpec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.counters import Counters, require_fitting
from impala_server.learner.gradient_exchange import BatchTotals, GradientExchange
from impala_server.learner.host_buffers import HostBuffers
from impala_server.learner.optimizers import (
    compute_learning_rate,
    import_state,
    make_optimizer,
    name_state,
)
from impala_server.learner.parameters import ParameterTable, Value
from impala_server.learner.precision import choose_encoder_dtype
from impala_server.learner.run_files import load_initial_weights
from impala_server.learner.update import Updater
from impala_server.learner.update_result import UpdateResult

_LOG = logging.getLogger(__name__)


class StateSnapshot(NamedTuple):
    """A copy of a TrainingState, as a checkpoint holds it.

    Attributes:
      tensors: by group and name; valid until the next snapshot goes into the same buffers.
      state: everything else that a resume needs. Any: JSON.
    """

    tensors: Tensors
    state: dict[str, Any]


def resolve_spec_with(
    config: TrainConfig, environment: EnvironmentSpec, checkpoint: Checkpoint | None
) -> ModelSpec:
    """Returns the network's specification: new, or as the run of `checkpoint` has it.

    Raises:
      ConfigError: the network does not fit the environment.
    """
    trained = None if checkpoint is None else checkpoint.state.get("model")
    return resolve_model_spec(
        config.model,
        environment,
        normalise_rewards=config.loss.reward_normalisation != "none",
        normalise_integers=checkpoint is None
        or (isinstance(trained, dict) and bool(trained.get("normalise_integers", False))),
    )


class TrainingState:
    """All state that training changes. Used by one thread at a time.

    Attributes:
      config: settings of the next update; a new object after `set_parameter`.
      environment: specification of observations and actions.
      model_spec: the network's specification.
      device: device of network and batches.
      model: the live network.
      optimizer: of the network's parameters.
      parameters: settings that may change while training runs.
      counters: totals of the run.
      learning_rate: of the last update.
      encoder_dtype: precision of the network's encoder.
    """

    def __init__(
        self,
        config: TrainConfig,
        environment: EnvironmentSpec,
        checkpoint: Checkpoint | None,
        exchange: GradientExchange | None = None,
    ) -> None:
        """Builds everything, from the seed or from `checkpoint`.

        Args:
          config: all settings.
          environment: specification of observations and actions.
          checkpoint: to go on from; None: the beginning.
          exchange: with the other learner ranks; None: there are none.

        Raises:
          ConfigError: the network does not fit the environment.
          ModelError: an own network cannot be made, or breaks the contract.
          CheckpointError: the checkpoint belongs to another network.
        """
        self.config = config
        self.environment = environment
        self.model_spec = resolve_spec_with(config, environment, checkpoint)
        self.parameters = ParameterTable(config)
        self.counters = Counters()
        self.learning_rate = config.optimizer.learning_rate
        self.device = resolve_device(config.job.device)
        self.model: AgentModel = make_model(self.model_spec, environment, config.job.seed).to(
            self.device
        )
        if self.model_spec.is_own and self.device.type != "cpu":
            validate_model(self.model, environment)  # on the device of the training
        self.optimizer = make_optimizer(config.optimizer, self.model)
        self.encoder_dtype = choose_encoder_dtype(
            config.job, self.model_spec, self.model, environment
        )
        self._exchange = exchange
        self._updater = Updater(
            config, self.model, self.optimizer, environment.action, self.encoder_dtype, exchange
        )
        if checkpoint is not None:
            self._restore(checkpoint)
            self.parameters.restore(checkpoint.state.get("parameters"))
            self._take_over_parameters()
        elif (weights_to_start := load_initial_weights(config)) is not None:
            restore_weights(
                self.model, weights_to_start, config.job.init_model_path, self.model_spec.name
            )

    @property
    def unroll_spec(self) -> UnrollSpec:
        """Specification of this network's unrolls."""
        return UnrollSpec(
            self.config.rollout.unroll_length, self.environment, self.model.agent_state_specs()
        )

    @property
    def device_name(self) -> str:
        """Name of the device for logs and status."""
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        return str(self.device)

    @property
    def reward_std(self) -> float | None:
        """Divisor of rewards; None without reward normalisation."""
        std = self._updater.reward_std
        return None if std is None else float(std)

    @property
    def has_other_ranks(self) -> bool:
        """Whether other learner ranks make the same updates."""
        return self._exchange is not None

    @property
    def is_finished(self) -> bool:
        """Whether all steps of the run have been trained on."""
        return self.counters.trained_steps >= self.config.job.total_steps

    def apply(self, batch: Batch, has_time: Callable[[], bool] = lambda: False) -> UpdateResult:
        """Makes one update on `batch`, on this state's device, and counts it.

        Where the settings allow for more passes, `has_time` says before each whether to make it.

        If the result says that the update was not applied, only the count of skipped updates has
        changed, unless the result also says that the weights are damaged.

        Raises:
          DeviceMemoryError: no memory for the update; nothing has changed.
          RankLostError: another learner rank is gone; nothing has changed.
        """
        counters = self.counters
        totals = BatchTotals(batch.num_steps, batch.num_unrolls)
        if self._exchange is not None:
            totals = self._exchange.begin(*totals)
        self.learning_rate = compute_learning_rate(
            self.config.optimizer, counters.trained_steps, self.config.job.total_steps
        )
        result = self._updater.apply(batch, self.learning_rate, has_time)
        if not result.is_applied:
            counters.skipped_updates += 1
            return result
        counters.policy_version += 1
        counters.trained_steps += totals.num_steps
        counters.trained_unrolls += totals.num_unrolls
        counters.optimizer_steps += result.num_steps
        return result

    def set_parameter(self, name: str, text: str) -> Value:
        """Sets a parameter for all further updates; returns its value before.

        Raises:
          NotFoundError, InvalidRequestError: see `ParameterTable.set`; nothing has changed.
        """
        before = self.parameters.set(name, text, self.counters.trained_steps)
        self._take_over_parameters()
        return before

    def extend(self, num_steps: int) -> None:
        """Sets the end to `num_steps` beyond the steps trained; schedules continue from here."""
        job = dataclasses.replace(
            self.config.job, total_steps=self.counters.trained_steps + num_steps
        )
        self.config = dataclasses.replace(self.config, job=job)

    def roll_back(self, checkpoint: Checkpoint) -> int:
        """Goes back to a checkpoint; returns the agent steps before.

        Weights, optimizer, random streams, steps, unrolls and episodes are those of the
        checkpoint; policy_version goes on upwards, and counts of failures and time stay.

        Raises:
          CheckpointError: it belongs to another network; nothing has changed.
        """
        require_fitting(checkpoint, self.model.state_dict())
        now = self.counters
        self.optimizer.state.clear()
        self._restore(checkpoint)
        then, self.counters = self.counters, now
        steps_before = now.trained_steps
        now.trained_steps = then.trained_steps
        now.trained_unrolls = then.trained_unrolls
        now.num_episodes = then.num_episodes
        now.optimizer_steps = then.optimizer_steps
        now.policy_version += 1
        return steps_before

    def export(self, buffers: HostBuffers | None = None) -> StateSnapshot:
        """Returns a copy of everything, in `buffers` or, without them, in fresh memory."""
        tensors = (buffers or HostBuffers()).copy(
            {
                "weights": {
                    name: value.detach() for name, value in self.model.state_dict().items()
                },
                "optimizer": name_state(self.optimizer, self.model),
                "rng": {
                    "torch_cpu": torch.get_rng_state(),
                    "shuffle": self._updater.generator.get_state(),
                },
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
        return StateSnapshot(tensors, state)

    def _restore(self, checkpoint: Checkpoint) -> None:
        groups, state = checkpoint.tensors, checkpoint.state
        try:
            self.counters = Counters.from_json(state["counters"])
            saved_optimizer = state["optimizer"]
            weights = groups["weights"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"checkpoint {checkpoint.name} was not written by a learner: {error!r}"
            ) from error
        restore_weights(self.model, weights, checkpoint.name, self.model_spec.name)
        if saved_optimizer == self.config.optimizer.optimizer:
            import_state(self.optimizer, self.model, groups.get("optimizer", {}))
        else:
            _LOG.warning("optimizer changed from %s: its state starts anew", saved_optimizer)
        streams = groups.get("rng", {})
        if "torch_cpu" in streams:
            torch.set_rng_state(torch.from_numpy(streams["torch_cpu"]))
        if "shuffle" in streams:
            self._updater.generator.set_state(torch.from_numpy(streams["shuffle"]))
        if self._exchange is not None and self._exchange.rank:  # each rank draws its own orders
            seed = (self.config.job.seed, self._exchange.rank, self.counters.policy_version)
            stream = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
            self._updater.generator.manual_seed(stream)
            torch.manual_seed(stream)

    def _take_over_parameters(self) -> None:
        self.config = self.parameters.config
        self._updater.configure(self.config)
