"""Supervisor: starts the children of a learner server and ends them in order.

Used by impala-server, impala-train and tests, from one thread. The children are the
table of `impala_server.children`: a learner and a front end. The supervisor
itself has neither torch nor gRPC in it. Children watch their pipe to it, so
that they end even when it is killed; it watches theirs, so that it knows when
one of them dies. It never waits for a child that does not read.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path

from impala_common.config import TrainConfig
from impala_common.config.toml_io import dump_config
from impala_common.errors import CheckpointError, ImpalaError, QueueClosedError, rebuild_error
from impala_common.process import failpoints
from impala_common.process.logs import LogFormat
from impala_common.process.passed_objects import ObjectMemory
from impala_common.run.run_directory import RunDirectory, write_text_atomic
from impala_server.children import Child, make_child_specs
from impala_server.messages import (
    Bound,
    Failed,
    LearnerStatus,
    LogLevelSet,
    Message,
    ShutdownAsked,
    StatusNews,
    Stop,
    unexpected_message,
)
from impala_server.ranks.place import ALONE, RankPlace
from impala_server.storage.process_ends import make_ends
from impala_server.storage.shared_block import SharedBlock

_LOG = logging.getLogger(__name__)
_UNHURRIED_PATIENCE_S = 60.0
_LOOK_S = 0.02


class Supervisor:
    """A running learner server: start it, poll it, stop it, close it.

    Attributes:
      address: HOST:PORT that actors connect to; None before the front end listens.
      prometheus_address: HOST:PORT of the metrics; None where there are none.
      killed: children that did not end in time and were killed.
      unsaved: why the last checkpoint was not written, where that was found while stopping.
      status: the learner's newest status.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        log_level: str = "WARNING",
        log_format: LogFormat = "text",
        objects: ObjectMemory | None = None,
        has_log_files: bool = False,
        place: RankPlace = ALONE,
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
          place: of this learner among the learner ranks.
        """
        self._place = place
        self._objects = objects
        self._has_log_files = has_log_files
        self._config = config
        self._run = run
        self._log_options = (log_level, log_format)
        self._children: dict[str, Child] = {}
        self._has_failed = False
        self._stop_by_s = math.inf  # finite once a stop was asked for
        self._shared: tuple[SharedBlock, ...] = ()  # held here only when in-process
        self.address: str | None = None
        self.prometheus_address: str | None = None
        self.killed: tuple[str, ...] = ()
        self.unsaved: CheckpointError | None = None
        self.status = LearnerStatus(state="STARTING")

    def start(self) -> None:
        """Starts all children with the settings. Returns at once.

        A new run's config.toml is written here. An existing one stays until the learner has
        accepted the new settings and writes them (`Controller`).

        Raises:
          ConfigError: the environment variable arms failpoints that are not allowed here; or the
            run's folder cannot be written to.
          ImpalaError: a child cannot be started.
        """
        failpoints.arm_from_environment(self._config.transport.host)
        with self._run.written():
            self._run.create()
            if not self._run.config_path.exists():
                write_text_atomic(self._run.config_path, dump_config(self._config))
            self._run.address_path.unlink(missing_ok=True)
        ends, pipes = make_ends()
        specs = make_child_specs(self._config, self._run, self._objects, self._place)
        self._children = {name: Child(name, spec, pipes[name]) for name, spec in specs.items()}
        if self._config.transport.front_end == "in-process":
            self._shared = tuple(ends[self._leader.name].blocks.values())
            for name, child in self._children.items():
                child.start_thread(self._config, self._run, ends[name])
            return
        settings = dump_config(self._config)
        try:
            for name, child in self._children.items():
                log = self._log_path(child) if self._has_log_files else None
                child.start_process(self._run.path, ends[name], self._log_options, log, settings)
        except ImpalaError:
            self._has_failed = True
            raise
        finally:
            for one in ends.values():
                one.close_pipes()
                one.close_blocks()

    @property
    def _leader(self) -> Child:
        """The child whose status is the run's: the learner."""
        return next(iter(self._children.values()))

    @property
    def _followers(self) -> tuple[Child, ...]:
        """The children that end after the leader."""
        return tuple(self._children.values())[1:]

    @property
    def _is_stop_requested(self) -> bool:
        return self._stop_by_s < math.inf

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

    def poll(self, timeout_s: float) -> LearnerStatus | None:
        """Waits for news and returns the newest status; None once the learner has ended.

        Raises:
          ImpalaError: a child failed; says why.
        """
        if not self._children or (leader := self._leader).pipe is None:
            return None
        pipes = [child.pipe for child in self._children.values() if child.pipe is not None]
        connection.wait([pipe.fileno() for pipe in pipes], timeout=timeout_s)
        for pipe in pipes:
            pipe.flush()
        dead = [child for child in self._followers if self._has_died(child)]
        try:
            while (message := leader.pipe.receive(0.0)) is not None:
                self._handle(message)
        except QueueClosedError:
            leader.close_pipe()
            if self.status.state != "STOPPED":
                raise self._died(leader) from None
            if self.status.reason == "stopping" and not self._is_stop_requested:
                # Nobody but a dead follower can have made the learner stop.
                ended = (child for child in self._followers if not child.is_alive)
                raise self._died(next(ended, self._followers[0])) from None
            return None
        if dead:
            raise self._died(dead[0])
        return self.status

    def request_stop(self) -> None:
        """Asks for an ordered end: refuse new unrolls, finish the update, write a checkpoint."""
        if not self._children or self._is_stop_requested:
            return
        self._stop_by_s = time.monotonic() + self._leader.spec.stop_patience_s
        if (pipe := self._leader.pipe) is not None:
            pipe.send(Stop())

    def close(self, is_stop_wanted: Callable[[], bool] = lambda: False) -> None:
        """Ends all children, in order; by force where one does not end in time.

        Takes 23 s at most from the first `request_stop` (24 if both must be killed), so that a
        process manager that waits 25 s sees the command end. If the learner ended by itself, each
        child has a minute more to leave, as a busy machine may need, or until the stop is wanted.
        `killed` then lists the killed processes.

        Args:
          is_stop_wanted: whether somebody waits for the end by now; called again and again.
        """
        if not self._children:
            return
        has_ended = not self._is_stop_requested and self._leader.pipe is None
        if has_ended:
            self._wait_for((self._leader,), is_stop_wanted)
        self.request_stop()
        while self._leader.pipe is not None and time.monotonic() < self._stop_by_s:
            try:
                self.poll(0.1)
            except CheckpointError as error:
                self.unsaved = error
            except ImpalaError as error:
                if not self._has_failed:  # after a failure, ignore the errors that follow from it
                    _LOG.warning("while stopping: %s", error)
        self._join(self._leader, max(1.0, self._stop_by_s - time.monotonic()))
        for child in self._followers:
            if child.pipe is not None:
                child.pipe.send(Stop())
        if has_ended:
            self._wait_for(self._followers, is_stop_wanted)
        for child in self._followers:
            self._join(child, child.spec.stop_patience_s)
        for child in self._children.values():
            child.close_pipe()
        for block in self._shared:
            block.close()
        with contextlib.suppress(OSError):  # such as of a disk that became read-only
            self._run.address_path.unlink(missing_ok=True)

    def _wait_for(self, children: tuple[Child, ...], is_stop_wanted: Callable[[], bool]) -> None:
        """Waits until these have ended, for a minute at most and while nobody wants the stop."""
        until_s = time.monotonic() + _UNHURRIED_PATIENCE_S
        while time.monotonic() < until_s and not is_stop_wanted():
            if not any(child.is_alive for child in children):
                return
            time.sleep(_LOOK_S)

    def raise_if_incomplete(self) -> None:
        """Raises an error if the end was not in order.

        Raises:
          CheckpointError: the last checkpoint was not written.
          ImpalaError: a process had to be killed to end it.
        """
        if self.unsaved is not None:
            raise self.unsaved
        if not self.killed:
            return
        raise ImpalaError(
            f"the {' and '.join(self.killed)} process hung while stopping and was killed; the "
            f"newest checkpoint is {self.status.last_checkpoint or 'the one before this start'}"
        )

    def _has_died(self, child: Child) -> bool:
        """Handles a follower's messages; returns whether it died while the leader was at work."""
        if child.pipe is None:
            return False
        try:
            while (message := child.pipe.receive(0.0)) is not None:
                self._handle(message)
        except QueueClosedError:
            child.close_pipe()
            # It also ends when the learner is gone; whose fault that is, the learner's pipe tells.
            is_at_work = self.status.state in ("STARTING", "RUNNING", "PAUSED")
            return is_at_work and not self._is_stop_requested and self._leader.is_alive
        return False

    def _died(self, child: Child) -> ImpalaError:
        """Returns the error that says so, and of what if that can be known."""
        where = str(self._log_path(child)) if self._has_log_files else "above"
        return ImpalaError(
            f"the {child.title} process died{child.describe_end()}; see its messages {where}"
        )

    def _handle(self, message: Message) -> None:
        match message:
            case StatusNews():
                self.status = message.status
            case ShutdownAsked():
                _LOG.warning("an administrator ends the learner")
                self.request_stop()
            case LogLevelSet():
                if not self._has_log_files:
                    logging.getLogger().setLevel(message.level)
            case Bound():
                self.address = message.address
                self.prometheus_address = message.prometheus
                if self._leader.pipe is not None:
                    self._leader.pipe.send(message)  # a run may go on now
                with self._run.written():
                    write_text_atomic(self._run.address_path, message.address + "\n")
            case Failed():
                self._has_failed = True
                raise rebuild_error(message.reason, message.text)
            case unexpected:
                raise unexpected_message(unexpected, "the supervisor")

    def _log_path(self, child: Child) -> Path:
        return self._run.log_path / f"{child.title}.log"

    def _join(self, child: Child, timeout_s: float) -> None:
        if not child.join(timeout_s):
            self.killed = (*self.killed, child.title)
