"""IMPALA: the seed's class, over a real learner server and actor processes.

Between two calls an agent is a network, an optimizer and counters in the
caller's process; other processes run only during `train`. The caller's working directory, random
streams, signal handlers, environment variables, torch threads and logging stay unchanged.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from impala_agent.agent_files import load_checkpoint
from impala_agent.agent_state import AgentState
from impala_agent.argument_types import as_count
from impala_agent.callbacks import Callback
from impala_agent.environments import make_source, validate_same_spaces
from impala_agent.in_process import act_in_process, evaluate_in_process
from impala_agent.loading import LoadMethod
from impala_agent.results import EvalResult, TrainResult, make_eval_result
from impala_agent.seed_settings import (
    ConfigLike,
    is_given,
    make_train_config,
    replace_settings,
    seed_default,
)
from impala_agent.training import Training
from impala_common.errors import ImpalaError

_BEGIN_S = 60.0


class IMPALA(AgentState):
    """An agent that trains by IMPALA: V-trace in a learner server, actors in processes.

        from impala_rl import IMPALA

        with IMPALA("CartPole-v1", num_actors=2, batch_size=8) as agent:
            agent.train(num_train_steps=100_000)
            print(agent.eval(num_eval_episodes=10)["return_mean"])

    Args:
      env: environment to train on: a Gymnasium id, a function that makes one, a gymnasium.Env or
        a vector environment. Actors make their own; the given one is never stepped.
      eval_env: the same for evaluation; None: env.
      tag: part of the run folder's name.
      seed: seed of everything.
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
      use_lstm: whether the network has an LSTM; config (recurrence) also offers a GRU.
      ent_coef: weight of the entropy bonus.
      baseline_coef: weight of the value loss.
      max_grad_norm: largest gradient norm.
      discount: per step.
      network_init_method: identity, orthogonal, xavier_uniform, xavier_normal, kaiming_uniform
        or kaiming_normal.
      init_fn: another name of network_init_method; None: not given.
      envs_per_actor: environments of each actor; the default for a vector environment is its own
        number.
      model: network by name, or an own network; see docs/models.md.
      config: settings without an argument: a TrainConfig, a mapping of sections, or the path of
        a TOML file. An argument overrides config, and config overrides the seed's defaults. A
        TrainConfig has every setting, so it overrides all defaults of the seed.
      run_dir: folder of the run; None: runs/ENV-TAG-TIME. Nothing is written before train or save.
      quiet: whether `train` shows no progress.

    Attributes:
      config: all settings.
      run_dir: the run's folder.
      training: the value set by `mode`.

    Raises:
      ImpalaError: an argument is invalid; the text names it and the reason.
    """

    load = LoadMethod()
    """`IMPALA.load(path)` returns an agent, `agent.load(path)` loads into one; see `make_agent`."""

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
        source = eval_source = make_source("env", env, environment_config)
        if eval_env is not None:
            eval_source = make_source("eval_env", eval_env, environment_config)
            validate_same_spaces(source, eval_source)
        if source.num_slots is not None and not is_given(envs_per_actor):
            arguments["envs_per_actor"] = seed_default(source.num_slots)
        settings = make_train_config(arguments, config)
        super().__init__(
            replace_settings(settings, environment={"env": source.name}),
            source,
            eval_source,
            run_dir,
        )
        self._quiet = quiet
        self._has_begun = threading.Condition(self._lock)
        self._actor_stops: set[threading.Event] = set()
        if model is not None:
            self.set(model=model)

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
          actor_idx: number in its name, "act-0".
          free_queue: not used: unrolls go to the learner by gRPC.
          full_queue: not used.
          init_actor_state_storages: not used: recurrent state travels with each unroll.
          stop: ends the actor at the next unroll.

        Returns:
          Agent steps played.

        Raises:
          ImpalaError: no training is running, or the environment does not fit it.
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
        *,
        callbacks: Sequence[Callback] = (),
    ) -> TrainResult:
        """Trains on `num_train_steps` further agent steps, with a learner server and actors.

        Afterwards the agent has the trained weights, optimizer and counters. Ctrl-C ends the
        training in order, with a checkpoint, and returns.

        Args:
          num_train_steps: agent steps; the schedule ends after them.
          init_model_path: checkpoint or run with the initial weights.
          log_interval: seconds between two lines of metrics; None: the setting in config.
          eval_interval: agent steps between two evaluations by a process of its own, which keep the
            best checkpoint; 0: none; None: as config says, or ten in all with an eval_env.
          save_interval: agent steps between two checkpoints; None: as config says, by time.
          num_eval_episodes: episodes of each evaluation, with drawn actions and again with greedy
            ones.
          callbacks: objects whose hooks are called meanwhile, on this thread; see
            `impala_rl.Callback`.

        Raises:
          Exception: what a hook of a callback raised; the training was ended in order before.
          ImpalaError: learner or actors failed; the text has the reason. All processes have ended,
            and the agent has the state of the newest checkpoint.
        """
        num_train_steps = as_count("num_train_steps", num_train_steps)
        with ExitStack() as stack:
            with self._lock:
                self._require_idle("train")
                own = self._frozen()
                init_model = None if init_model_path is None else load_checkpoint(init_model_path)
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
                    eval_env="" if self._eval_env is self._env else self._eval_env.name,
                    is_quiet=self._quiet,
                    callbacks=callbacks,
                )
                if init_model is not None:
                    own.load_weights(init_model)
                self._training = stack.enter_context(training)
                self._has_begun.notify_all()
            try:
                return training.run()
            finally:
                with self._lock:
                    self._training = None
                    try:
                        own = training.take_over()
                    except KeyboardInterrupt:  # what was trained must not be lost
                        own = training.take_over()
                        raise
                    finally:
                        self._own = own
                        own.network.train(self.training)

    def eval(self, num_eval_episodes: int = 10, *, greedy: bool = False) -> EvalResult:
        """Plays episodes with frozen weights, in eval_env if it was given.

        Args:
          num_eval_episodes: least number of episodes; each environment plays the same number.
          greedy: whether the most probable action is taken; by default actions are drawn, as in
            training and as impala-eval does.

        Returns:
          episode_rewards and episode_lengths (means, by the seed's names), return_mean,
          confidence_low and confidence_high (95 % interval), returns, and more, as attributes and
          as keys.
        """
        num_eval_episodes = as_count("num_eval_episodes", num_eval_episodes)
        with self._lock:
            network = self._frozen().copy_network()
        evaluation = evaluate_in_process(
            network, self._eval_env.name, self.config, num_eval_episodes, greedy
        )
        return make_eval_result(evaluation)

    def close(self) -> None:
        """Ends a training in another thread, and actors of `act`."""
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
