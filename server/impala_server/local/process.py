"""LocalProcess: a child process of impala-train that is replaced when it dies.

An ordinary command that talks gRPC to the learner; the server imports nothing of it. The wait
before each restart grows while it keeps dying. A process that reports unusable settings is not
restarted. Owned by the command's main thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from impala_common.config import TrainConfig
from impala_common.config.checks import is_own_model
from impala_common.errors import ConfigError, ImpalaError
from impala_common.process.exit_codes import CONFIG, NO_PERMISSION, OK, USAGE
from impala_common.process.parent import name_parent
from impala_common.process.passed_objects import ObjectMemory
from impala_common.process.starting import starting
from impala_server.local.security import local_address, local_client_security

EXIT_WITH_PARENT = "--exit-with-parent"
"""Option of all commands that end when the process that started them is gone."""

_LOG = logging.getLogger(__name__)
_MAX_PAUSE_S = 10.0
_REST_S = 2.0  # enough to learn whether the run has finished
MAX_QUICK_DEATHS = 5
"""Accepted deaths in a row, each after a short time, once a batch has been trained on."""
_QUICK_S = 20.0
_SETTLED_S = 600.0
"""A process that lived so long before it failed begins a new count: it works, as a rule."""
MAX_LOG_BYTES = 16 << 20
"""A log that is larger is rotated."""
_KEPT_LOG_BYTES = 4 << 20


class ActorSettingsError(ConfigError):
    """An actor or evaluator reported unusable settings, in its own words."""

    reason = "ACTOR_SETTINGS"

    def __init__(self, text: str) -> None:
        ImpalaError.__init__(self, text)


Command = list[str] | Callable[[int], list[str]]
"""A command line, or what makes that of a start from its number: 0, then 1 at the first restart."""


class LocalProcess:
    """One process and its history.

    Attributes:
      name: in messages and of its log.
      log_path: its log.
      command: its command line, also of later starts, or what makes that of each start.
    """

    def __init__(
        self, name: str, command: Command, log_path: Path, objects: ObjectMemory | None = None
    ) -> None:
        self._objects = objects
        self.name = name
        self.log_path = log_path
        self.command = command
        self._num_starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._restart_s = 0.0
        self._quick_deaths = self._quick_ends = 0

    def start(self) -> None:
        """Starts the process; its messages go to its log.

        Raises:
          ImpalaError: it cannot be started.
        """
        self._started_s = time.monotonic()
        command = self.command(self._num_starts) if callable(self.command) else self.command
        self._num_starts += 1
        with starting(self.name), self.log_path.open("ab") as log:
            self._process = _spawn(command, log, self._objects)

    def check(self, max_quick_deaths: int = MAX_QUICK_DEATHS) -> None:
        """Replaces a process that has died.

        Args:
          max_quick_deaths: deaths in a row after which it is given up.

        Raises:
          ImpalaError: it cannot work, or keeps dying.
        """
        _rotate(self.log_path)
        if self._process is None:
            if time.monotonic() >= self._restart_s:
                self.start()
            return
        code = self._process.poll()
        if code is None:
            return
        self._process = None
        if code == OK:  # the run has finished, or the actor was evicted and must be restarted
            self._note_quiet_end()
            self._restart_s = time.monotonic() + _REST_S
            return
        if code == NO_PERMISSION and "banned" in _last_error(self.log_path):
            self._restart_s = time.monotonic() + _REST_S  # try again: a ban may be lifted
            return
        if code in (CONFIG, USAGE, NO_PERMISSION):
            raise ActorSettingsError(_last_error(self.log_path))
        # A failure of its own counts for longer than death by a signal, which a person may have
        # sent.
        short_s = _SETTLED_S if code > 0 else _QUICK_S
        is_short = time.monotonic() - self._started_s < short_s
        self._quick_deaths = self._quick_deaths + 1 if is_short else 1
        how = f"exit code {code}: {_last_error(self.log_path)}" if code > 0 else f"signal {-code}"
        if self._quick_deaths >= max_quick_deaths:
            raise ImpalaError(
                f"{self.name} failed {self._quick_deaths} times in a row, the last time with "
                f"{how} (log: {self.log_path})"
            )
        pause_s = min(_MAX_PAUSE_S, 0.5 * 2**self._quick_deaths)
        self._restart_s = time.monotonic() + pause_s
        _LOG.warning("%s died (%s) and is replaced; log: %s", self.name, how, self.log_path)

    def _note_quiet_end(self) -> None:
        """Counts ends with code 0; ImpalaError: there are too many soon after the start."""
        is_short = time.monotonic() - self._started_s < _QUICK_S
        self._quick_ends = self._quick_ends + 1 if is_short else 0
        if self._quick_ends >= MAX_QUICK_DEATHS:
            raise ImpalaError(
                f"{self.name} ended {self._quick_ends} times in a row within {_QUICK_S:g} s of its "
                "start, with exit code 0: its environment may end the process, as os._exit(0) does "
                f"(log: {self.log_path})"
            )

    def terminate(self) -> None:
        """Sends SIGTERM to the process."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, timeout_s: float) -> None:
        """Waits for the process, at most `timeout_s`."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)

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


def client_options(
    config: TrainConfig, address: str, env: str, is_evaluator: bool = False
) -> list[str]:
    """Returns the options that actors and evaluator share, for the learner at `address`."""
    options = ["--server", local_address(address), "--env", env]
    options += ["--env-backend", config.environment.env_backend, EXIT_WITH_PARENT]
    options += ["--env-timeout-s", str(config.environment.env_timeout_s)]
    if is_own_model(config.model.model):
        options += ["--model", config.model.model]
    if config.environment.env_kwargs:
        options += ["--env-kwargs", config.environment.env_kwargs]
    if config.environment.env_wrapper:
        options += ["--env-wrapper", *config.environment.env_wrapper]
    options += ["--log-format", "text"]  # files in logs/ are read by people
    security = local_client_security(config.security, address, is_evaluator)
    for name, value in dataclasses.asdict(security).items():
        options += [f"--{name.replace('_', '-')}", value] if value else []
    return options


def _spawn(
    command: list[str], log: IO[bytes], objects: ObjectMemory | None
) -> subprocess.Popen[bytes]:
    # One thread each: several processes share the cores. A session of its own: Ctrl-C reaches
    # the command alone, which ends things in order.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if EXIT_WITH_PARENT in command:
        environment |= name_parent()
    return subprocess.Popen(  # noqa: S603 (our own module)
        [*command, *(() if objects is None else objects.option)],
        pass_fds=() if objects is None else (objects.fd,),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def _rotate(log_path: Path) -> None:
    """Keeps a log that an environment writes into from filling the disk.

    Its end becomes LOG.1, in place of an older one; the process goes on writing at the beginning.
    """
    try:
        if not log_path.exists() or log_path.stat().st_size <= MAX_LOG_BYTES:
            return
        with log_path.open("r+b") as log:
            log.seek(-_KEPT_LOG_BYTES, os.SEEK_END)
            log_path.with_name(f"{log_path.name}.1").write_bytes(log.read(_KEPT_LOG_BYTES))
            log.truncate(0)
    except OSError as error:
        _LOG.warning("%s cannot be rotated: %s", log_path, error)


def _last_error(log_path: Path) -> str:
    """Returns the process's error, or its last line; a log may have been removed by then."""
    try:
        lines = log_path.read_text(errors="replace").strip().splitlines()[-40:]
    except OSError as error:
        return f"(no message: its log cannot be read: {error.strerror})"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else (lines[-1] if lines else "(no message)")
