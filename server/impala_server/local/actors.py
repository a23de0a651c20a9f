"""The actor processes that impala-train starts on this machine.

They are ordinary `impala-actor` commands or, with `--thin`, `impala-thin-actor` commands and a
policy server. An actor that dies is replaced; an actor that reports unusable settings ends the run.
The evaluator, if the settings ask for one, starts and ends with them.
"""

from __future__ import annotations

import functools
import time

from impala_common.config import TrainConfig
from impala_common.errors import ConfigError
from impala_common.process.own_modules import python_command
from impala_common.process.passed_objects import ObjectMemory
from impala_common.run.run_directory import RunDirectory
from impala_server.local.evaluator import LocalEvaluator
from impala_server.local.policy_server import LocalPolicyServer
from impala_server.local.process import MAX_QUICK_DEATHS, LocalProcess, client_options
from impala_server.local.thin_actors import (
    thin_actor_command,
    thin_actor_seed,
    validate_thin_run,
)

_MAX_FIRST_DEATHS = 2
_STOP_S = 15.0
_TOLD_S = 3.0  # an actor that knows the run has finished ends within a second
_LEAVE_S = 6.0  # an actor ends within 5 s of SIGTERM


class LocalActors:
    """All actors of this machine. Owned by the command's main thread."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        address: str,
        objects: ObjectMemory | None = None,
        learner_life: int = 0,
    ) -> None:
        """Prepares `num_actors` actors for the learner at `address`.

        Args:
          config: all settings.
          run: the run's folder.
          address: of the learner.
          objects: environments and networks that are Python objects of this process.
          learner_life: how often the run's learner was started before; in thin actors' seeds.
        """
        validate_thin_run(config, objects)
        self._config = config
        self._learner_life = learner_life
        is_thin = config.policy_server.thin
        self._actors = [
            LocalProcess(
                name,
                [] if is_thin else _command(config, address, name),
                run.log_path / f"{name}.log",
                None if is_thin else objects,
            )
            for name in _names(config)
        ]
        self._policy_server: LocalPolicyServer | None = None
        if config.policy_server.is_wanted:
            self._policy_server = LocalPolicyServer(config, run, address)
        self._evaluator = LocalEvaluator(config, run, address, objects)

    @property
    def policy_address(self) -> str | None:
        """HOST:PORT of the policy server; None before it listens, or where there is none."""
        return None if self._policy_server is None else self._policy_server.address

    def start(self) -> None:
        """Starts all of them; thin actors as soon as `check` finds the policy server's port."""
        if self._policy_server is not None:
            self._policy_server.start()
        if not self._config.policy_server.thin:
            for actor in self._actors:
                actor.start()
        self._evaluator.start()

    def check(self, has_trained: bool = True) -> None:
        """Replaces actors that died; raises ImpalaError if they cannot work.

        Args:
          has_trained: whether the learner has ever got a batch from them. Before that, two deaths
            in a row end the run.
        """
        if self._policy_server is not None:
            was_open = self._policy_server.address is not None
            self._policy_server.check()
            if self._policy_server.address is not None and not was_open:
                self._start_thin(self._policy_server.address)
        if not self._config.policy_server.thin or self.policy_address is not None:
            for actor in self._actors:
                actor.check(MAX_QUICK_DEATHS if has_trained else _MAX_FIRST_DEATHS)
        self._evaluator.check()

    def stop(self, is_run_over: bool = False) -> None:
        """Ends the actors: waits if the learner has told them to leave, else sends SIGTERM.

        An actor that was still starting when the run ended gets SIGTERM, too.
        """
        deadline_s = time.monotonic() + (_STOP_S if is_run_over else _LEAVE_S)
        clients: list[LocalProcess | LocalPolicyServer] = [*self._actors]
        if self._policy_server is not None:  # after thin actors, so that they can say goodbye
            clients.append(self._policy_server)
        if is_run_over:
            told_s = time.monotonic() + _TOLD_S
            for client in clients:
                client.wait(max(0.1, told_s - time.monotonic()))
        else:
            self._evaluator.terminate()  # its result is not needed any more
        for client in clients:
            client.terminate()
        for client in clients:
            client.join(max(0.1, deadline_s - time.monotonic()))
        if is_run_over:
            self._evaluator.terminate(is_run_over)
        self._evaluator.join(max(0.1, deadline_s - time.monotonic()))

    def _start_thin(self, address: str) -> None:
        """Starts the thin actors, if there are any, at the address of the policy server."""
        for index, actor in enumerate(self._actors if self._config.policy_server.thin else ()):
            actor.command = functools.partial(self._thin_command, address, actor.name, index)
            actor.start()

    def _thin_command(self, address: str, name: str, index: int, start: int) -> list[str]:
        """Returns the command of a thin actor; each start plays other games."""
        seed = thin_actor_seed(self._config.job.seed, self._learner_life, index, start)
        return thin_actor_command(self._config, address, name, seed)


def _names(config: TrainConfig) -> list[str]:
    kind = "thin-actor" if config.policy_server.thin else "actor"
    return [f"{kind}-{index}" for index in range(config.job.num_actors)]


def _command(config: TrainConfig, address: str, actor_id: str) -> list[str]:
    command = [*python_command("impala_actor"), "--actor-id", actor_id]
    command += ["--inference-backend", config.job.inference_backend]
    command += ["--env-threads", str(max(1, config.job.env_threads))]
    return command + client_options(config, address, config.environment.env)


def validate_local_run(config: TrainConfig) -> None:
    """Raises ConfigError if impala-train cannot start actors for these settings."""
    if not config.environment.env:
        raise ConfigError(
            "--env", "", "an environment id", "for example --env CartPole-v1 or --env ALE/Pong-v5"
        )
    if 1 <= config.job.num_actors < config.ranks.learner_ranks:
        raise ConfigError(
            "--num-actors",
            config.job.num_actors,
            f"at least {config.ranks.learner_ranks}, one for each learner rank",
            "a rank without an actor would have no batches",
        )
    if config.job.num_actors < 1:
        raise ConfigError(
            "--num-actors",
            config.job.num_actors,
            "at least 1",
            "impala-server runs a learner without actors of its own",
        )
    validate_thin_run(config)
