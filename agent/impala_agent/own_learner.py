"""The agent's own network, optimizer and counters, in the caller's process.

The learner's own code, with storage in plain memory: what `update` does here is
what the learner process does, and what `export` gives is what its checkpoints
hold. The global random streams of the caller's process are left alone: an own
stream is put in place for as long as the learner works, and travels in checkpoints.
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
from impala_agent.seed_settings import replace_settings
from impala_common.config import TrainConfig
from impala_common.models.contract import AgentModel
from impala_common.policy.frozen_run import load_weights
from impala_common.process.devices import resolve_device
from impala_common.run import metrics
from impala_common.run.checkpoints import Checkpoint
from impala_common.spec.specs import EnvironmentSpec
from impala_server.learner.checkpoint_writer import Snapshot
from impala_server.learner.learner import Learner
from impala_server.storage.handoff import ActorSeconds, FullSlot
from impala_server.storage.shared_block import SharedBlock

Array = np.ndarray[Any, Any]
_SEED_NAMES = {
    "total_loss": metrics.LOSS_TOTAL,
    "pg_loss": metrics.LOSS_PG,
    "baseline_loss": metrics.LOSS_BASELINE,
    "entropy_loss": metrics.LOSS_ENTROPY,
}


class _PlainBlock(SharedBlock):
    """Memory of this process only, in the learner's terms: no descriptor to leave behind."""

    def __init__(self) -> None:
        super().__init__(-1)
        self._memory = bytearray()

    def resize(self, num_bytes: int) -> None:
        """Gives the block its size."""
        self._memory = bytearray(num_bytes)

    def map(self) -> memoryview:
        """Returns a view of the whole block."""
        return memoryview(self._memory)


class OwnLearner:
    """Network, optimizer and counters. Owned by the agent, used under its lock.

    Attributes:
      is_fresh: whether everything is still as the seed says.
      run_path: folder of a run whose newest checkpoint this was when it was read; it may go on.
    """

    def __init__(
        self, config: TrainConfig, environment: EnvironmentSpec, checkpoint: Checkpoint | None
    ) -> None:
        """Builds everything, from the seed or from `checkpoint`.

        Raises:
          ConfigError: the network does not fit the environment.
          CheckpointError: the checkpoint belongs to another network.
        """
        # Storage is never used: batches come from the caller. Nor does anybody open a shut gate.
        small = replace_settings(
            config,
            rollout={"batch_size": 1, "unroll_length": 1, "num_storages": 1},
            optimizer={"when_diverged": "end"},
        )
        self._device = resolve_device(config.job.device)
        with self._forked():
            torch.default_generator.manual_seed(config.job.seed)
            self._learner = Learner(small, environment, _PlainBlock(), _PlainBlock(), checkpoint)
            self._random_state = torch.get_rng_state()
        self._config = config
        self.is_fresh = checkpoint is None
        self.run_path: Path | None = None
        if checkpoint is not None:
            self._learner.counters.learner_life -= 1  # the agent is no new life of a learner

    @property
    def learner(self) -> Learner:
        """What holds everything."""
        return self._learner

    @property
    def network(self) -> AgentModel:
        """The live network, on the learner's device."""
        return self._learner.model

    def restored(self, checkpoint: Checkpoint, run_path: Path | None) -> OwnLearner:
        """Returns another one, as `checkpoint` has it.

        Args:
          checkpoint: of the same spaces and network.
          run_path: see the class.

        Raises:
          CheckpointError: it is of other spaces or another network.
        """
        validate_fitting(checkpoint, self._learner.environment, self._learner.model_spec)
        saved = EnvironmentSpec.from_json(checkpoint.state["environment"])
        environment = self._learner.environment.with_roles_of(saved.observation_leaves)
        other = OwnLearner(self._config, environment, checkpoint)
        other.run_path = run_path
        return other

    def load_weights(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint's weights and nothing else.

        Raises:
          CheckpointError: it is of other spaces or another network.
        """
        validate_fitting(checkpoint, self._learner.environment, self._learner.model_spec)
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
          SpecMismatchError: the batch is not what it should be.
          TrainingDivergedError: too many updates in a row were not finite.
        """
        learner = self._learner
        packed = make_batch(
            values,
            initial_agent_state,
            learner.environment,
            learner.agent_state,
            learner.model_spec,
            self._device,
            learner.counters.policy_version,
        )
        self._extend_schedule()
        version = learner.counters.policy_version
        learner.stats.collect(time.monotonic())
        with self._own_random_stream():
            full = FullSlot(0, packed.episodes, ActorSeconds(0.0, 0.0, 0.0))
            learner.train(full, packed.batch, 0.0)
        self.is_fresh = False
        is_applied = learner.counters.policy_version > version
        if is_applied:
            learner.counters.trained_unrolls += packed.num_unrolls - 1
        collected = learner.stats.collect(time.monotonic())
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
        result["learning_rate"] = learner.learning_rate
        result["is_applied"] = is_applied
        return result

    def export(self) -> Snapshot:
        """Returns what the learner's checkpoints hold."""
        with self._own_random_stream():
            return self._learner.export()

    def _extend_schedule(self) -> None:
        """Lets the schedule go on, as a further training would, where it has come to its end."""
        learner = self._learner
        job = learner.config.job
        if learner.is_finished:
            learner.config = replace_settings(
                learner.config,
                job={"total_steps": learner.counters.trained_steps + job.total_steps},
            )

    @contextlib.contextmanager
    def _own_random_stream(self) -> Iterator[None]:
        with self._forked():
            torch.set_rng_state(self._random_state)
            yield
            self._random_state = torch.get_rng_state()

    def _forked(self) -> contextlib.AbstractContextManager[None]:
        """Puts torch's global streams back at the end."""
        is_cuda = self._device.type == "cuda"
        devices = [self._device.index or 0] if is_cuda else []
        return torch.random.fork_rng(devices=devices)
