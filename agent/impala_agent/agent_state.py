"""AgentState: the agent's learner, settings and files between two trainings.

Settings, network, optimizer and counters, in the caller's process, under one lock.
`impala_agent.agent` adds training, evaluation and acting.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from impala_agent.agent_files import load_checkpoint, run_of, save_checkpoint, write_state
from impala_agent.environments import EnvironmentSource
from impala_agent.modules import make_model_source
from impala_agent.own_learner import OwnLearner
from impala_agent.seed_settings import replace_settings
from impala_agent.training import Training, require_own_run
from impala_common.config import TrainConfig
from impala_common.errors import ConfigError, IllegalTransitionError
from impala_common.models.contract import AgentModel
from impala_common.policy.frozen_policy import run_model
from impala_common.policy.prediction import PredictState, predict
from impala_common.process.passed_objects import Kind
from impala_common.run.checkpoints import Checkpoint
from impala_common.run.run_directory import RunDirectory, default_run_path

_NO_MODULES = {
    "storage": "rollout storage is the learner server's: num_storages and batch_size size it",
    "distribution": "the action space decides it",
    "augmentation": "put it into the encoder",
    "reward": "wrap the environment; intrinsic rewards are not part of this project",
}
"""Modules that the seed's `set` accepts and this one refuses, with the alternative."""


class AgentState:
    """Settings, network, optimizer and counters of an agent.

    Attributes:
      config: all settings.
      run_dir: the run's folder.
      training: what `mode` set.
    """

    def __init__(
        self,
        config: TrainConfig,
        env: EnvironmentSource,
        eval_env: EnvironmentSource,
        run_dir: str | os.PathLike[str] | None,
    ) -> None:
        """Stores settings; nothing is built yet."""
        self.config = config
        self._env = env
        self._eval_env = eval_env
        self._has_run_dir = run_dir is not None
        self.run_dir = Path(os.path.abspath(run_dir or _choose_run_dir(env.title, config.job.tag)))
        self.training = True
        self._objects: dict[tuple[Kind, str], bytes] = {**env.objects, **eval_env.objects}
        self._lock = threading.RLock()  # held while the state is used or replaced
        self._own: OwnLearner | None = None
        self._training: Training | None = None
        self._random = np.random.default_rng((config.job.seed, 0x9D))  # draws of `predict`

    @property
    def network(self) -> AgentModel:
        """The live network, on the learner's device."""
        return self._frozen().network

    @property
    def global_step(self) -> int:
        """Agent steps trained on so far."""
        return 0 if self._own is None else self._own.state.counters.trained_steps

    @property
    def global_episode(self) -> int:
        """Finished episodes so far."""
        return 0 if self._own is None else self._own.state.counters.num_episodes

    def set(
        self,
        encoder: object = None,
        policy: object = None,
        storage: object = None,
        distribution: object = None,
        augmentation: object = None,
        reward: object = None,
        *,
        model: object = None,
        optimizer: str | None = None,
    ) -> None:
        """Chooses modules; only before `freeze` and methods that call it.

        Args:
          encoder: from observations [N, ...] to features [N, F]: a torch.nn.Module, or a class or
            function of (model_spec, environment_spec) that makes one; also a shipped network's
            name, such as "impala_resnet".
          policy: the same as `model`, by its name in the seed.
          storage: refused, as what follows: see `docs/migration.md`.
          distribution: refused.
          augmentation: refused.
          reward: refused.
          model: the whole network: a class or function as above, a network, or a name.
          optimizer: "rmsprop" or "adam".

        Raises:
          IllegalTransitionError: the structure is frozen.
          ConfigError: a module cannot be set, or its value is invalid.
        """
        refused = {
            "storage": storage,
            "distribution": distribution,
            "augmentation": augmentation,
            "reward": reward,
        }
        for name, value in refused.items():
            if value is not None:
                raise ConfigError(name, value, "left out", _NO_MODULES[name])
        networks = {"encoder": encoder, "policy": policy, "model": model}
        given = {name: value for name, value in networks.items() if value is not None}
        if len(given) > 1:
            raise ConfigError(" and ".join(given), "given", "one of them", "each is the network")
        with self._lock:
            if self._own is not None:
                raise IllegalTransitionError(
                    "the structure is frozen: call set() before freeze(), train(), eval(), "
                    "update(), save() and load(); make a new IMPALA for another structure"
                )
            for name, value in given.items():
                model_name, objects = make_model_source(name, value)
                try:
                    self.config = replace_settings(self.config, model={"model": model_name})
                except ConfigError as error:  # name the caller's argument, not the setting
                    raise ConfigError(name, error.value, error.rule, error.consequence) from None
                self._objects |= objects
            if optimizer is not None:
                self.config = replace_settings(self.config, optimizer={"optimizer": optimizer})

    def freeze(self) -> None:
        """Builds network and optimizer from the settings; afterwards the structure is fixed.

        Raises:
          ImpalaError: the network does not fit the spaces, or breaks its contract.
        """
        self._frozen()

    def mode(self, training: bool = True) -> None:
        """Switches the network between training and evaluation (dropout and the like)."""
        with self._lock:
            self.training = training
            self._frozen().network.train(training)

    def update(
        self,
        batch: Mapping[str, Any],  # Any: tensors, arrays, or a mapping of observations
        init_actor_states: tuple[Any, ...] | None = None,
        lock: Any = None,  # Any: threading's locks have no common type
    ) -> dict[str, Any]:  # Any: numbers and tuples
        """Makes one learner step with the agent's own network and optimizer.

        Args:
          batch: time-major tensors or arrays by glossary name; see
            `impala_agent.batches.make_batch`.
          init_actor_states: recurrent state before row 0, each [L, B, H]; None: fresh episodes.
          lock: held meanwhile, beside the agent's own.

        Returns:
          The seed's metrics: episode_returns and episode_steps (of episodes that ended in the
          batch), total_loss, pg_loss, baseline_loss, entropy_loss; and grad_norm, kl, rho_mean,
          learning_rate and more. `is_applied` is False where a loss was not finite.

        Raises:
          SpecMismatchError: an entry of the batch is wrong; the text names it.
          TrainingDivergedError: too many updates in a row were not finite.
          IllegalTransitionError: a training is running.
        """
        with ExitStack() as locks:
            if lock is not None:
                locks.enter_context(lock)
            locks.enter_context(self._lock)
            self._require_idle("update")
            return self._frozen().update(batch, init_actor_states)

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes a complete checkpoint: weights, optimizer, counters, random stream, settings.

        Args:
          path: its folder, which is made or replaced; None: one among the run's checkpoints,
            by its step.

        Returns:
          The checkpoint's folder.
        """
        with self._lock:
            self._require_idle("save")
            own = self._frozen()
            tensors, state = own.export()
            if path is None:
                run = RunDirectory(self._claim_run_dir())
                require_own_run(run, own)
                with run.lock():
                    written = write_state(run, self.config, tensors, state)
                own.run_path = run.path
                return written
            return save_checkpoint(Path(path), self.global_step, tensors, state)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Loads everything in a checkpoint; the same as `agent.load(path)`.

        Args:
          path: folder of a checkpoint, or of a run, whose newest one it is.

        Raises:
          CheckpointError: it is missing, damaged, or of other spaces or another network, as the
            text says. The agent is unchanged then.
        """
        with self._lock:
            self._require_idle("load")
            self.take(load_checkpoint(Path(path)), run_of(Path(path)))

    def take(
        self, checkpoint: Checkpoint, run_path: Path | None, *, is_complete: bool = True
    ) -> None:
        """Takes over a checkpoint that was read.

        Args:
          checkpoint: of the same spaces and network.
          run_path: folder of the run whose newest checkpoint it is, which may go on.
          is_complete: False: the weights only.

        Raises:
          CheckpointError: it is of other spaces or another network.
        """
        with self._lock:
            own = self._frozen()
            if is_complete:
                own = self._own = own.restored(checkpoint, run_path)
            else:
                own.load_weights(checkpoint)
            own.network.train(self.training)

    def predict(
        self,
        observation: Any,  # Any: as the environment's space is nested
        state: PredictState | None = None,
        deterministic: bool = True,
        *,
        episode_start: Any = None,  # Any: a bool, or an array or list of them
        reward: Any = None,  # Any: a number, or an array or list of them
        action_mask: Any = None,  # Any: an array or list of bools
    ) -> tuple[Any, PredictState]:
        """Returns an action as the environment's `step` takes it, and the next state.

        Arguments and errors are those of `impala_rl.FrozenPolicy.predict`. During a training in
        another thread the weights are those before it.
        """
        with self._lock:
            own = self._frozen()
            return predict(
                lambda inputs, agent_state: run_model(own.network, inputs, agent_state),
                own.state.environment,
                observation,
                state,
                None if deterministic else self._random,
                is_fed_back=own.state.model_spec.is_fed_back,
                episode_start=episode_start,
                reward=reward,
                action_mask=action_mask,
            )

    def _frozen(self) -> OwnLearner:
        with self._lock:
            if self._own is None:
                self._own = OwnLearner(self.config, self._env.spec, None)
            return self._own

    def _require_idle(self, method: str) -> None:
        if self._training is not None:
            raise IllegalTransitionError(f"{method}: a training runs; close() ends it")

    def _claim_run_dir(self) -> Path:
        """Returns the run's folder; makes a unique one if none was given."""
        if self._has_run_dir:
            return self.run_dir
        first = self.run_dir
        for number in itertools.count(2):
            try:
                self.run_dir.mkdir(parents=True)
                break
            except FileExistsError:  # another agent made it in the same second
                self.run_dir = first.with_name(f"{first.name}-{number}")
        self._has_run_dir = True
        return self.run_dir


def _choose_run_dir(title: str, tag: str) -> Path:
    """Returns a folder name that no other agent uses, even if it is made later."""
    path = default_run_path(title, tag)
    return path.with_name(f"{path.name}-{secrets.token_hex(2)}")
