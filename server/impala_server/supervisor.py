"""Supervisor: starts the learner and front-end processes and ends them in order.

Used by impala-server, impala-train and tests, from one thread. The supervisor imports neither torch
nor gRPC. Children watch their pipe to it, so that they end even when it is killed; it watches their
pipes, so that it notices when one of them dies.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import connection
from pathlib import Path
from typing import Any

from impala_common import errors
from impala_common.config import TrainConfig
from impala_common.config.toml_io import dump_config
from impala_common.errors import ImpalaError, QueueClosedError
from impala_common.process import failpoints
from impala_common.process.logs import LogFormat
from impala_common.process.passed_objects import ObjectMemory
from impala_common.run.run_directory import RunDirectory, write_text_atomic
from impala_server.storage.handoff import ControlPipe
from impala_server.storage.process_ends import ProcessEnds, make_ends
from impala_server.storage.shared_block import SharedBlock

_LOG = logging.getLogger(__name__)
_STOP_S = 17.0
_FRONT_END_STOP_S = 6.0  # it waits 4 s for actors
_EXIT_S = 1.0
_ERRORS = {
    kind.reason: kind
    for kind in (
        errors.AddressInUseError,
        errors.CheckpointError,
        errors.ConfigError,
        errors.DeviceMemoryError,
        errors.MissingExtraError,
        errors.ModelError,
        errors.TrainingDivergedError,
        errors.UnsupportedSpaceError,
    )
}

_ENVIRONMENTS = {"front_end": {"MALLOC_ARENA_MAX": "2"}}
"""Environment variables of the processes, unless set by the user. gRPC's threads parse messages of
many
MiB: with an arena for each thread, a front end grew by 300 MiB for good when it was sent 10 GB in 3
MiB messages."""

Status = dict[str, Any]
"""Metrics by name, plus "state" and "last_checkpoint"."""


class Supervisor:
    """A running learner server: start it, poll it, stop it, close it."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        log_level: str = "WARNING",
        log_format: LogFormat = "text",
        objects: ObjectMemory | None = None,
        has_log_files: bool = False,
    ) -> None:
        """Prepares to serve `config` in `run`, whose lock the caller holds.

        Args:
          config: all settings.
          run: the run's folder.
          log_level: of both processes.
          log_format: of both processes.
          objects: networks that are Python objects of this process; owned by the caller.
          has_log_files: whether the processes log to files in the run's folder, not to stderr. An
            administrator's change of the log level then leaves this process's own level as it is.
        """
        self._objects = objects
        self._has_log_files = has_log_files
        self._config = config
        self._run = run
        self._log_level = log_level
        self._log_format = log_format
        self._learner_pipe: ControlPipe | None = None
        self._front_end_pipe: ControlPipe | None = None
        self._children: dict[str, subprocess.Popen[bytes] | threading.Thread] = {}
        self._has_failed = False
        self._is_stop_requested = False
        self._stop_by_s = math.inf
        self._shared: tuple[SharedBlock, ...] = ()  # used only when in-process
        self.address: str | None = None
        self.prometheus_address: str | None = None
        self.killed: tuple[str, ...] = ()
        self.status: Status = {"state": "STARTING"}

    def start(self) -> None:
        """Starts both processes (or threads) with the settings. Returns at once.

        A new run's config.toml is written here. An existing one stays until the learner has
        accepted the new settings and writes them (`Controller`).

        Raises:
          ConfigError: the environment variable arms failpoints that are not allowed here.
        """
        failpoints.arm_from_environment(self._config.transport.host)
        self._run.create()
        if not self._run.config_path.exists():
            write_text_atomic(self._run.config_path, dump_config(self._config))
        self._run.address_path.unlink(missing_ok=True)
        learner, front_end, self._learner_pipe, self._front_end_pipe = make_ends()
        if self._config.transport.front_end == "in-process":
            self._start_threads(learner, front_end)
            return
        num_threads = choose_learner_threads(self._config)
        objects = self._objects.option if self._objects is not None else ()
        # The learner holds the run's lock, too: it writes to the run even after this process was
        # killed.
        lock = self._run.lock_descriptors
        self._start_process("learner", learner, str(num_threads), *objects, pass_fds=lock)
        self._start_process("front_end", front_end)
        for ends in (learner, front_end):
            ends.close_pipes()
            ends.storage.close()
            ends.weights.close()

    def wait_until_bound(self, timeout_s: float = 60.0) -> str:
        """Waits until the front end listens; returns its address.

        Raises:
          AddressInUseError: the port is taken.
          ImpalaError: a process failed, or did not answer in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.address is None:
            if time.monotonic() > deadline_s:
                raise ImpalaError(f"the front end did not start within {timeout_s:g} s")
            self.poll(0.1)
        return self.address

    def poll(self, timeout_s: float) -> Status | None:
        """Waits for messages and returns the newest status; None once the learner has ended.

        Raises:
          ImpalaError: the learner or the front end failed; says why.
        """
        if self._learner_pipe is None:
            return None
        pipes = [pipe for pipe in (self._learner_pipe, self._front_end_pipe) if pipe is not None]
        connection.wait([pipe.connection for pipe in pipes], timeout=timeout_s)
        has_front_end_died = self._read_front_end()
        try:
            while (message := self._learner_pipe.receive(0.0)) is not None:
                self._handle(message)
        except QueueClosedError:
            self._learner_pipe.close()
            self._learner_pipe = None
            if self.status["state"] != "STOPPED":
                raise self._died("learner") from None
            if self.status["reason"] == "stopping" and not self._is_stop_requested:
                raise self._died("front_end") from None  # the learner only stops because of it
            return None
        if has_front_end_died:
            raise self._died("front_end")
        return self.status

    def request_stop(self) -> None:
        """Asks for an ordered end: refuse new unrolls, finish the update, write a checkpoint."""
        if not self._is_stop_requested:
            self._is_stop_requested = True
            self._stop_by_s = time.monotonic() + _STOP_S
        if self._learner_pipe is not None:
            self._learner_pipe.send("stop")

    def close(self) -> None:
        """Ends both processes, in order; by force if one does not end in time.

        Takes 23 s at most from the first `request_stop` (24 if both must be killed), so that a
        process manager that waits 25 s sees the command end. `killed` then lists the killed
        processes.
        """
        self.request_stop()
        while self._learner_pipe is not None and time.monotonic() < self._stop_by_s:
            try:
                self.poll(0.1)
            except ImpalaError as error:
                if not self._has_failed:  # after a failure, ignore the errors that follow from it
                    _LOG.warning("while stopping: %s", error)
        self._join("learner", max(1.0, self._stop_by_s - time.monotonic()))
        if self._front_end_pipe is not None:
            self._front_end_pipe.send("stop")
        self._join("front_end", _FRONT_END_STOP_S)
        for pipe in (self._learner_pipe, self._front_end_pipe):
            if pipe is not None:
                pipe.close()
        for block in self._shared:
            block.close()
        self._learner_pipe = self._front_end_pipe = None
        self._run.address_path.unlink(missing_ok=True)

    def raise_if_killed(self) -> None:
        """Raises ImpalaError if a process had to be killed to end it."""
        if not self.killed:
            return
        names = " and ".join(name.replace("_", "-") for name in self.killed)
        checkpoint = self.status.get("last_checkpoint")
        raise ImpalaError(
            f"the {names} process hung while stopping and was killed; the newest checkpoint is "
            f"{checkpoint or 'the one before this start'}"
        )

    def _read_front_end(self) -> bool:
        """Handles its messages; returns whether it died while the learner was still running."""
        if self._front_end_pipe is None:
            return False
        try:
            while (message := self._front_end_pipe.receive(0.0)) is not None:
                self._handle(message)
        except QueueClosedError:
            self._front_end_pipe.close()
            self._front_end_pipe = None
            # It also ends when the learner is gone; the learner's pipe tells which one failed.
            is_at_work = self.status["state"] in ("STARTING", "RUNNING", "PAUSED")
            return is_at_work and not self._is_stop_requested and self._is_alive("learner")
        return False

    def _is_alive(self, name: str) -> bool:
        child = self._children[name]
        return child.is_alive() if isinstance(child, threading.Thread) else child.poll() is None

    def _died(self, name: str) -> ImpalaError:
        """Returns the error of a process that died, with the cause if it is known."""
        child, how = self._children[name], ""
        if isinstance(child, subprocess.Popen):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(_EXIT_S)
                how = f" (signal {-code})" if code < 0 else f" (exit code {code})"
        title = name.replace("_", "-")
        where = str(self._log_path(name)) if self._has_log_files else "above"
        return ImpalaError(f"the {title} process died{how}; see its messages {where}")

    def _handle(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "status":
                self.status = message["status"]
            case "shutdown":
                _LOG.warning("an administrator ends the learner")
                self.request_stop()
            case "log_level":
                if not self._has_log_files:
                    logging.getLogger().setLevel(message["level"])
            case "bound":
                self.address = message["address"]
                self.prometheus_address = message.get("prometheus")
                if self._learner_pipe is not None:
                    self._learner_pipe.send("bound")  # a resumed run may continue now
                write_text_atomic(self._run.address_path, message["address"] + "\n")
            case "failed":
                kind = _ERRORS.get(message["reason"], ImpalaError)
                error = kind.__new__(kind)
                ImpalaError.__init__(error, message["text"])
                self._has_failed = True
                raise error

    def _start_process(
        self, name: str, ends: ProcessEnds, *arguments: str, pass_fds: tuple[int, ...] = ()
    ) -> None:
        command = [sys.executable, "-m", f"impala_server.{name}", str(self._run.path)]
        command += [ends.to_argument(), self._log_level, self._log_format, *arguments]
        objects = () if self._objects is None else (self._objects.fd,)
        with contextlib.ExitStack() as files:
            log = (
                files.enter_context(self._log_path(name).open("ab"))
                if self._has_log_files
                else None
            )
            settings = files.enter_context(tempfile.TemporaryFile())
            settings.write(dump_config(self._config).encode())
            settings.seek(0)
            # In a session of its own: Ctrl-C reaches only the supervisor, which ends its children
            # in order.
            self._children[name] = subprocess.Popen(  # noqa: S603 (our own module)
                command,
                pass_fds=(*ends.fds, *objects, *pass_fds),
                stdin=settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**_ENVIRONMENTS.get(name, {}), **os.environ},
            )

    def _log_path(self, name: str) -> Path:
        return self._run.log_path / f"{name.replace('_', '-')}.log"

    def _start_threads(self, learner: ProcessEnds, front_end: ProcessEnds) -> None:
        from impala_server.front_end.process import front_end_main
        from impala_server.learner.process import learner_main

        self._shared = (learner.storage, learner.weights)
        self._children = {
            "learner": threading.Thread(
                target=learner_main,
                args=(self._config, self._run, learner),
                name="impala-controller",
            ),
            "front_end": threading.Thread(
                target=front_end_main,
                args=(self._config, self._run, front_end),
                name="impala-front-end",
            ),
        }
        for thread in self._children.values():
            assert isinstance(thread, threading.Thread)
            thread.start()

    def _join(self, name: str, timeout_s: float) -> None:
        child = self._children.pop(name, None)
        if isinstance(child, threading.Thread):
            child.join(timeout_s)
            if child.is_alive():
                _LOG.error("%s did not end within %g s", child.name, timeout_s)
        elif child is not None:
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _LOG.error("the %s process did not end in time and is killed", name)
                self.killed = (*self.killed, name)
                child.kill()
                child.wait()


def choose_learner_threads(config: TrainConfig) -> int:
    """Returns the number of CPU threads of the learner's tensor operations.

    Each local actor keeps one core busy; the learner gets the others, at least one. Small networks
    gain nothing from a second thread.
    """
    if config.job.learner_threads:
        return config.job.learner_threads
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (num_cores or 1) - config.job.num_actors)
