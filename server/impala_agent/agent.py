"""IMPALA: the seed's class, over a real learner server and actor processes.

Between two calls an agent is a network, an optimizer and counters in the
caller's process; processes exist during `train` only. The caller's process
stays as it is: working directory, random streams, signal handlers, environment
variables, torch's threads and logging are never changed.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from impala_agent.agent_files import load_checkpoint, run_of, save_checkpoint, write_state
from impala_agent.environments import make_source, validate_same_spaces
from impala_agent.in_process import act_in_process, evaluate_in_process
from impala_agent.modules import make_model_source
from impala_agent.own_learner import OwnLearner
from impala_agent.results import TrainResult, make_eval_result
from impala_agent.seed_settings import (
    ConfigLike,
    is_given,
    make_train_config,
    replace_settings,
    seed_default,
)
from impala_agent.training import Training, require_own_run
from impala_common.config import TrainConfig
from impala_common.errors import ConfigError, IllegalTransitionError, ImpalaError
from impala_common.inherited_objects import Kind
from impala_common.models.contract import AgentModel
from impala_common.run_directory import RunDirectory, default_run_path

_BEGIN_S = 60.0
_NO_MODULES = {
    "storage": "rollout storage is the learner server's: num_storages and batch_size size it",
    "distribution": "the action space decides it",
    "augmentation": "put it into the encoder",
    "reward": "wrap the environment; intrinsic rewards are not part of this project",
}
"""Modules that the seed's `set` takes and this one does not, and what there is in place."""


class IMPALA:
    """An agent that trains by IMPALA: V-trace in a learner server, actors in processes.

        from impala_server import IMPALA

        with IMPALA("CartPole-v1", num_actors=2, batch_size=8) as agent:
            agent.train(num_train_steps=100_000)
            print(agent.eval(num_eval_episodes=10)["return_mean"])

    Args:
      env: environment to train on: a Gymnasium id, a function that makes one, a gymnasium.Env or
        a vector environment. Actors make their own; what is given is never stepped.
      eval_env: the same for evaluation; None: env.
      tag: part of the run folder's name.
      seed: everything derives from it.
      device: the learner's: cpu, cuda, cuda:N or auto.
      num_steps: T, the steps of one unroll.
      num_actors: actor processes.
      num_learners: learner threads.
      num_storages: unrolls that rollout storage holds.
      feature_dim: width of the encoder's output.
      batch_size: B, unrolls of one update.
      lr: learning rate at the start of its schedule.
      eps: term added to the optimizer's denominator.
      hidden_dim: width of the hidden layer, or of the LSTM.
      use_lstm: whether the network has an LSTM; others by config (recurrence).
      ent_coef: weight of the entropy bonus.
      baseline_coef: weight of the value loss.
      max_grad_norm: largest gradient norm.
      discount: per step.
      network_init_method: identity, orthogonal, xavier_uniform, xavier_normal, kaiming_uniform
        or kaiming_normal.
      init_fn: another name of network_init_method; None: that one holds.
      envs_per_actor: environments of each actor; where env is a vector environment, as many as it
        has, unless said here or in config.
      model: network by name, or one's own; see docs/models.md.
      config: settings without an argument: a TrainConfig, a mapping of sections, or the path of
        a TOML file. An argument that is given wins over config, and config over the seed's
        defaults. A TrainConfig says every setting, so that no default of the seed is left.
      run_dir: folder of the run; None: runs/ENV-TAG-TIME. Nothing is written before train or save.
      quiet: whether `train` shows no progress.

    Attributes:
      config: all settings.
      run_dir: the run's folder.
      training: what `mode` set.

    Raises:
      ImpalaError: an argument cannot work; says which and why.
    """

    def __init__(
        self,
        env: object,
        eval_env: object = None,
        tag: str = seed_default("default"),
        seed: int = seed_default(1),
        device: str = seed_default("cpu"),
        num_steps: int = seed_default(80),
        num_actors: int = seed_default(45),
        num_learners: int = seed_default(4),
        num_storages: int = seed_default(60),
        feature_dim: int = seed_default(512),
        batch_size: int = seed_default(4),
        lr: float = seed_default(4e-4),
        eps: float = seed_default(0.01),
        hidden_dim: int = seed_default(512),
        use_lstm: bool = seed_default(False),
        ent_coef: float = seed_default(0.01),
        baseline_coef: float = seed_default(0.5),
        max_grad_norm: float = seed_default(40),
        discount: float = seed_default(0.99),
        network_init_method: str = seed_default("identity"),
        init_fn: str | None = None,
        *,
        envs_per_actor: int = seed_default(1),
        model: object = None,
        config: ConfigLike | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        quiet: bool = False,
    ) -> None:
        arguments: dict[str, Any] = {  # Any: of different types
            "tag": tag,
            "seed": seed,
            "device": device,
            "num_steps": num_steps,
            "num_actors": num_actors,
            "num_learners": num_learners,
            "num_storages": num_storages,
            "feature_dim": feature_dim,
            "batch_size": batch_size,
            "lr": lr,
            "eps": eps,
            "hidden_dim": hidden_dim,
            "use_lstm": use_lstm,
            "ent_coef": ent_coef,
            "baseline_coef": baseline_coef,
            "max_grad_norm": max_grad_norm,
            "discount": discount,
            "network_init_method": network_init_method,
            "init_fn": init_fn,
            "envs_per_actor": envs_per_actor,
        }
        environment_config = make_train_config(arguments, config).environment
        self._env = make_source("env", env, environment_config)
        self._eval_env = self._env
        if eval_env is not None:
            self._eval_env = make_source("eval_env", eval_env, environment_config)
            validate_same_spaces(self._env, self._eval_env)
        if self._env.num_slots is not None and not is_given(envs_per_actor):
            arguments["envs_per_actor"] = seed_default(self._env.num_slots)
        self.config: TrainConfig = replace_settings(
            make_train_config(arguments, config), environment={"env": self._env.name}
        )
        self._has_run_dir = run_dir is not None
        self.run_dir = Path(os.path.abspath(run_dir or self._default_run_path()))
        self.training = True
        self._quiet = quiet
        self._objects: dict[tuple[Kind, str], bytes] = {
            **self._env.objects,
            **self._eval_env.objects,
        }
        self._lock = threading.RLock()  # held while the agent's own state is used
        self._own: OwnLearner | None = None
        self._training: Training | None = None
        self._has_begun = threading.Condition(self._lock)
        self._actor_stops: set[threading.Event] = set()
        if model is not None:
            self.set(model=model)

    @property
    def network(self) -> AgentModel:
        """The live network, on the learner's device."""
        return self._frozen().network

    @property
    def global_step(self) -> int:
        """Agent steps trained on so far."""
        return 0 if self._own is None else self._own.learner.counters.trained_steps

    @property
    def global_episode(self) -> int:
        """Finished episodes so far."""
        return 0 if self._own is None else self._own.learner.counters.num_episodes

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
        """Chooses modules; before `freeze` and whatever calls it.

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
          ConfigError: a module that cannot be set, or not like this.
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
                self.config = replace_settings(self.config, model={"model": model_name})
                self._objects |= objects
            if optimizer is not None:
                self.config = replace_settings(self.config, optimizer={"optimizer": optimizer})

    def freeze(self) -> None:
        """Builds network and optimizer from the settings; after it the structure is fixed.

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
          SpecMismatchError: the batch is not what it should be; names the entry.
          TrainingDivergedError: too many updates in a row were not finite.
          IllegalTransitionError: a training runs.
        """
        with ExitStack() as locks:
            if lock is not None:
                locks.enter_context(lock)
            locks.enter_context(self._lock)
            self._require_idle("update")
            return self._frozen().update(batch, init_actor_states)

    def act(
        self,
        env: object = None,
        actor_idx: int = 0,
        free_queue: object = None,
        full_queue: object = None,
        init_actor_state_storages: object = None,
        *,
        stop: threading.Event | None = None,
    ) -> int:
        """Runs one actor on the calling thread against the running learner.

        `train` must run in another thread, or begin within a minute. Returns when the run ends,
        when `stop` is set, or when the agent is closed.

        Args:
          env: as for the constructor; None: the agent's.
          actor_idx: becomes its name, "act-0".
          free_queue: not used: unrolls go to the learner by gRPC, and so does what follows.
          full_queue: not used.
          init_actor_state_storages: not used: recurrent state travels with each unroll.
          stop: ends the actor at the next unroll.

        Returns:
          Agent steps played.

        Raises:
          ImpalaError: no training runs, or the environment does not fit it.
        """
        source = self._env
        if env is not None:
            source = make_source("env", env, self.config.environment)
        stop = stop or threading.Event()
        with self._lock:
            if not self._has_begun.wait_for(lambda: self._training is not None, _BEGIN_S):
                raise ImpalaError("act: no learner is running; call train() in another thread")
            training = self._training
            self._actor_stops.add(stop)
        assert training is not None
        try:
            address = training.wait_for_address(_BEGIN_S)
            return act_in_process(source.name, f"act-{actor_idx}", address, training.config, stop)
        finally:
            with self._lock:
                self._actor_stops.discard(stop)

    def train(
        self,
        num_train_steps: int,
        init_model_path: str | os.PathLike[str] | None = None,
        log_interval: float | None = None,
        eval_interval: int | None = None,
        save_interval: int | None = None,
        num_eval_episodes: int = 10,
    ) -> TrainResult:
        """Trains on `num_train_steps` further agent steps, with a learner server and actors.

        Afterwards the agent holds what was trained: weights, optimizer and counters. Ctrl-C ends
        the training in order, with a checkpoint, and returns.

        Args:
          num_train_steps: agent steps; the schedule ends with them.
          init_model_path: checkpoint or run whose weights training begins with.
          log_interval: seconds between two lines of metrics; None: as config says.
          eval_interval: agent steps between two evaluations; None: as config says.
          save_interval: agent steps between two checkpoints; None: as config says, by time.
          num_eval_episodes: episodes of each evaluation.

        Raises:
          ImpalaError: learner or actors failed; says why. No process is left, and the agent holds
            what the newest checkpoint does.
        """
        with ExitStack() as stack:
            with self._lock:
                self._require_idle("train")
                own = self._frozen()
                if init_model_path is not None:
                    own.load_weights(load_checkpoint(Path(init_model_path)))
                training = Training(
                    self.config,
                    own,
                    self._claim_run_dir(),
                    self._objects,
                    num_train_steps=num_train_steps,
                    log_interval=log_interval,
                    eval_interval=eval_interval,
                    save_interval=save_interval,
                    num_eval_episodes=num_eval_episodes,
                    is_quiet=self._quiet,
                )
                self._training = stack.enter_context(training)
                self._has_begun.notify_all()
            try:
                return training.run()
            finally:
                with self._lock:
                    self._training = None
                    self._own = training.take_over()
                    self._own.network.train(self.training)

    def eval(self, num_eval_episodes: int = 10) -> dict[str, Any]:  # Any: numbers and tuples
        """Plays greedy episodes with frozen weights, in eval_env where there is one.

        Args:
          num_eval_episodes: at least so many are played, the same number in each environment.

        Returns:
          episode_rewards and episode_lengths (means, by the seed's names), return_mean,
          confidence_low and confidence_high (95 % interval), returns, and more.
        """
        with self._lock:
            network = self._frozen().copy_network()
        evaluation = evaluate_in_process(
            network, self._eval_env.name, self.config, num_eval_episodes
        )
        return make_eval_result(evaluation)

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

    def load(self, path: str | os.PathLike[str]) -> None:
        """Takes over everything a checkpoint holds.

        Args:
          path: folder of a checkpoint, or of a run, whose newest one it is.

        Raises:
          CheckpointError: there is none, it is damaged, or of other spaces or another network:
            says which. The agent is unchanged then.
        """
        with self._lock:
            self._require_idle("load")
            checkpoint = load_checkpoint(Path(path))
            self._own = self._frozen().restored(checkpoint, run_of(Path(path)))
            self._own.network.train(self.training)

    def close(self) -> None:
        """Ends what still runs: a training in another thread, and actors of `act`."""
        with self._lock:
            training = self._training
            for stop in self._actor_stops:
                stop.set()
        if training is not None:
            training.stop()

    def __enter__(self) -> Self:
        """Returns the agent."""
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_trace: TracebackType | None,
    ) -> None:
        """Closes the agent."""
        self.close()

    def _frozen(self) -> OwnLearner:
        with self._lock:
            if self._own is None:
                self._own = OwnLearner(self.config, self._env.spec, None)
            return self._own

    def _require_idle(self, method: str) -> None:
        if self._training is not None:
            raise IllegalTransitionError(f"{method}: a training runs; close() ends it")

    def _default_run_path(self) -> Path:
        return default_run_path(self._env.title, self.config.job.tag)

    def _claim_run_dir(self) -> Path:
        """Returns the run's folder; makes one that is nobody else's where none was named."""
        if self._has_run_dir:
            return self.run_dir
        first = self.run_dir
        for number in itertools.count(2):
            try:
                self.run_dir.mkdir(parents=True)
                break
            except FileExistsError:  # of another agent that began in the same second
                self.run_dir = first.with_name(f"{first.name}-{number}")
        self._has_run_dir = True
        return self.run_dir
