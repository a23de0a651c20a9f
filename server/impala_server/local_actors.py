"""The actor processes that impala-train starts on this machine.

They are ordinary `impala-actor` commands that talk gRPC to the learner; the
server imports nothing of them. One that dies is replaced, with a pause that
grows while it keeps dying; one that says its settings cannot work ends the run.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from impala_common.config import TrainConfig
from impala_common.config.checks import is_own_model
from impala_common.errors import ConfigError, ImpalaError
from impala_common.exit_codes import CONFIG, NO_PERMISSION, OK, USAGE
from impala_common.inherited_objects import ObjectMemory
from impala_common.run_directory import RunDirectory
from impala_server.local_security import local_actor_options, local_address

_LOG = logging.getLogger(__name__)
_STOP_S = 15.0
_LEAVE_S = 6.0  # an actor that is asked to leaves within 5 s
_MAX_PAUSE_S = 10.0
_REST_S = 2.0  # by then it is known whether the run has finished
_MAX_QUICK_DEATHS = 5
_QUICK_S = 20.0


class ActorSettingsError(ConfigError):
    """An actor found that its settings cannot work; the text is the actor's."""

    reason = "ACTOR_SETTINGS"

    def __init__(self, text: str) -> None:
        ImpalaError.__init__(self, text)


class _LocalActor:
    """One actor's process and its history."""

    def __init__(
        self, name: str, command: list[str], log_path: Path, objects: ObjectMemory | None = None
    ) -> None:
        self._objects = objects
        self.name = name
        self.log_path = log_path
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._restart_s = 0.0
        self._quick_deaths = 0

    def start(self) -> None:
        """Starts the process; its messages go to its log."""
        self._started_s = time.monotonic()
        with self.log_path.open("ab") as log:
            self._process = _spawn(self._command, log, self._objects)

    def check(self) -> None:
        """Replaces a process that has died.

        Raises:
          ImpalaError: it cannot work, or keeps dying.
        """
        if self._process is None:
            if time.monotonic() >= self._restart_s:
                self.start()
            return
        code = self._process.poll()
        if code is None:
            return
        self._process = None
        if code == OK:  # the run has finished; if not, somebody sent it away and it is missed
            self._restart_s = time.monotonic() + _REST_S
            return
        if code == NO_PERMISSION and "banned" in _last_error(self.log_path):
            self._restart_s = time.monotonic() + _REST_S  # in case the ban is lifted
            return
        if code in (CONFIG, USAGE, NO_PERMISSION):
            raise ActorSettingsError(_last_error(self.log_path))
        is_quick = time.monotonic() - self._started_s < _QUICK_S
        self._quick_deaths = self._quick_deaths + 1 if is_quick else 1
        if self._quick_deaths >= _MAX_QUICK_DEATHS:
            raise ImpalaError(
                f"{self.name} died {self._quick_deaths} times in a row (exit code {code}); "
                f"its last words: {_last_error(self.log_path)} (log: {self.log_path})"
            )
        pause_s = min(_MAX_PAUSE_S, 0.5 * 2**self._quick_deaths)
        self._restart_s = time.monotonic() + pause_s
        _LOG.warning(
            "%s died (exit code %d) and is replaced; log: %s", self.name, code, self.log_path
        )

    def terminate(self) -> None:
        """Asks the process to leave."""
        if self._process is not None:
            self._process.terminate()

    def join(self, timeout_s: float) -> None:
        """Waits for the process; kills it when time is up."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _LOG.warning("%s did not leave in time and is killed", self.name)
            self._process.kill()
            self._process.wait()
        self._process = None


class LocalActors:
    """All actors of this machine. Owned by the command's main thread."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        address: str,
        objects: ObjectMemory | None = None,
    ) -> None:
        """Prepares `num_actors` actors for the learner at `address`.

        Args:
          config: all settings.
          run: the run's folder.
          address: of the learner.
          objects: environments and networks that are Python objects of this process.
        """
        self._actors = [
            _LocalActor(
                f"actor-{index}",
                _command(config, address, f"actor-{index}"),
                run.log_path / f"actor-{index}.log",
                objects,
            )
            for index in range(config.job.num_actors)
        ]

    def start(self) -> None:
        """Starts all of them."""
        for actor in self._actors:
            actor.start()

    def check(self) -> None:
        """Replaces those that died; raises ImpalaError if that makes no sense."""
        for actor in self._actors:
            actor.check()

    def stop(self, is_run_over: bool = False) -> None:
        """Ends them: waits if the learner has told them to leave, else asks them to."""
        if not is_run_over:
            for actor in self._actors:
                actor.terminate()
        deadline_s = time.monotonic() + (_STOP_S if is_run_over else _LEAVE_S)
        for actor in self._actors:
            actor.join(max(0.1, deadline_s - time.monotonic()))


def _command(config: TrainConfig, address: str, actor_id: str) -> list[str]:
    command = [sys.executable, "-m", "impala_actor", "--server", local_address(address)]
    command += ["--env", config.environment.env, "--actor-id", actor_id]
    command += ["--env-backend", config.environment.env_backend, "--exit-with-parent"]
    command += ["--env-timeout-s", str(config.environment.env_timeout_s)]
    if is_own_model(config.model.model):
        command += ["--model", config.model.model]
    if config.environment.env_kwargs:
        command += ["--env-kwargs", config.environment.env_kwargs]
    if config.environment.env_wrapper:
        command += ["--env-wrapper", *config.environment.env_wrapper]
    command += ["--log-format", "text"]  # logs/actor-N.log is for people
    command += local_actor_options(config.security, address)
    return command


def _spawn(
    command: list[str], log: IO[bytes], objects: ObjectMemory | None
) -> subprocess.Popen[bytes]:
    # One thread each: several processes share the cores. A session of its own: Ctrl-C reaches
    # the command alone, which ends things in order.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(  # noqa: S603 (our own module)
        [*command, *(() if objects is None else objects.option)],
        pass_fds=() if objects is None else (objects.fd,),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def _last_error(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").strip().splitlines()[-40:]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else (lines[-1] if lines else "(no message)")


def validate_local_run(config: TrainConfig) -> None:
    """Raises ConfigError if impala-train cannot start actors for these settings."""
    if not config.environment.env:
        raise ConfigError(
            "--env", "", "an environment id", "for example --env CartPole-v1 or --env ALE/Pong-v5"
        )
    if config.job.num_actors < 1:
        raise ConfigError(
            "--num-actors",
            config.job.num_actors,
            "at least 1",
            "impala-server runs a learner without actors of its own",
        )
