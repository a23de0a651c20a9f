"""The agent's own training state, in the caller's process.

A TrainingState, as in the learner process: `update` makes the same updates, and `export` returns
the content of a checkpoint. The global random streams of the caller's process stay unchanged: an
own stream, which checkpoints contain, replaces them during the work.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from impala_agent.agent_files import validate_fitting
from impala_agent.batches import make_batch
from impala_common.config import TrainConfig
from impala_common.models.contract import AgentModel
from impala_common.policy.frozen_run import load_weights
from impala_common.process.devices import resolve_device
from impala_common.run import metrics
from impala_common.run.checkpoints import Checkpoint
from impala_common.spec.specs import EnvironmentSpec
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.learner_health import LearnerHealth
from impala_server.learner.stats import LearnerStats
from impala_server.learner.training_state import StateSnapshot, TrainingState, resolve_spec_with
from impala_server.storage.handoff import ActorSeconds

Array = np.ndarray[Any, Any]
_SEED_NAMES = {
    "total_loss": metrics.LOSS_TOTAL,
    "pg_loss": metrics.LOSS_PG,
    "baseline_loss": metrics.LOSS_BASELINE,
    "entropy_loss": metrics.LOSS_ENTROPY,
}


class OwnLearner:
    """Network, optimizer and counters. Owned by the agent, used under its lock.

    Attributes:
      is_fresh: whether everything is still as made from the seed.
      run_path: folder of the run whose newest checkpoint was loaded, for continuing it.
    """

    def __init__(
        self, config: TrainConfig, environment: EnvironmentSpec, checkpoint: Checkpoint | None
    ) -> None:
        """Builds everything, from the seed or from `checkpoint`.

        Raises:
          ConfigError: the network does not fit the environment.
          CheckpointError: the checkpoint belongs to another network.
        """
        self._device = resolve_device(config.job.device)
        with self._forked():
            torch.default_generator.manual_seed(config.job.seed)
            self._state = TrainingState(config, environment, checkpoint)
            self._random_state = torch.get_rng_state()
        self._stats = LearnerStats(time.monotonic())
        self._health = LearnerHealth()
        self._config = config
        self.is_fresh = checkpoint is None
        self.run_path: Path | None = None

    @property
    def state(self) -> TrainingState:
        """The training state."""
        return self._state

    @property
    def network(self) -> AgentModel:
        """The live network, on the learner's device."""
        return self._state.model

    def restored(self, checkpoint: Checkpoint, run_path: Path | None) -> OwnLearner:
        """Returns a new one with the state in `checkpoint`.

        Args:
          checkpoint: of the same spaces and network.
          run_path: see the class.

        Raises:
          CheckpointError: it belongs to other spaces or another network.
        """
        state = self._state
        expected = resolve_spec_with(self._config, state.environment, checkpoint)
        validate_fitting(checkpoint, state.environment, expected)
        saved = EnvironmentSpec.from_json(checkpoint.state["environment"])
        environment = state.environment.with_roles_of(saved.observation_leaves)
        other = OwnLearner(self._config, environment, checkpoint)
        other.run_path = run_path
        return other

    def load_weights(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint's weights and nothing else.

        Raises:
          CheckpointError: it belongs to other spaces or another network.
        """
        validate_fitting(checkpoint, self._state.environment, self._state.model_spec)
        load_weights(self.network, checkpoint)
        self.is_fresh = False

    def copy_network(self) -> AgentModel:
        """Returns a copy of the network, on the CPU."""
        return copy.deepcopy(self.network).cpu()

    def update(
        self, values: Mapping[str, Any], initial_agent_state: tuple[Any, ...] | None
    ) -> dict[str, Any]:  # Any: tensors in, numbers and tuples out
        """Makes one update; see `IMPALA.update`.

        Raises:
          SpecMismatchError: an entry of the batch is wrong.
          TrainingDivergedError: too many updates in a row were not finite.
        """
        state = self._state
        packed = make_batch(
            values,
            initial_agent_state,
            state.environment,
            state.model.agent_state_specs(),
            state.model_spec,
            self._device,
            state.counters.policy_version,
        )
        if state.is_finished:  # as a further training does
            state.extend(state.config.job.total_steps)
        version = state.counters.policy_version
        start_s = time.perf_counter()
        with self._own_random_stream():
            applied = state.apply(packed.batch)
        self.is_fresh = False
        error = self._health.note(applied, state.config.optimizer)
        if error is not None:
            raise error
        self._stats.collect(time.monotonic())  # drops sums of the update before
        if applied.is_applied:
            state.counters.num_episodes += len(packed.episodes)
            taken = TakenBatch(packed.batch, 0, packed.episodes, ActorSeconds(0.0, 0.0, 0.0))
            seconds = time.perf_counter() - start_s
            self._stats.add(taken, applied, version, seconds, packed.batch.num_steps)
        collected = self._stats.collect(time.monotonic())
        result: dict[str, Any] = {
            "episode_returns": tuple(episode.episode_return for episode in packed.episodes),
            "episode_steps": tuple(episode.num_steps for episode in packed.episodes),
        }
        result |= {name: collected.get(metric, math.nan) for name, metric in _SEED_NAMES.items()}
        result |= {
            name.partition("/")[2]: value
            for name, value in collected.items()
            if name.startswith("learner/") and not name.endswith("_s")
        }
        result["learning_rate"] = state.learning_rate
        result["is_applied"] = applied.is_applied
        return result

    def export(self) -> StateSnapshot:
        """Returns the content of a learner's checkpoint.

        Raises:
          CheckpointWriteError: the weights are damaged; no checkpoint may hold them.
        """
        self._health.require_sound_weights()
        with self._own_random_stream():
            return self._state.export()

    @contextlib.contextmanager
    def _own_random_stream(self) -> Iterator[None]:
        with self._forked():
            torch.set_rng_state(self._random_state)
            yield
            self._random_state = torch.get_rng_state()

    def _forked(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context that restores torch's global streams at its end."""
        is_cuda = self._device.type == "cuda"
        devices = [self._device.index or 0] if is_cuda else []
        return torch.random.fork_rng(devices=devices)
