"""Children of the supervisor: how each is started, its pipe, and how it ends.

`make_child_specs` is the table of them. A child is a process, or a thread where
everything runs in one process. Owned by the supervisor's thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from impala_common.config import TrainConfig
from impala_common.process.own_modules import python_command
from impala_common.process.passed_objects import ObjectMemory
from impala_common.process.starting import open_settings, starting
from impala_common.run.run_directory import RunDirectory
from impala_server.ranks.place import ALONE, RankPlace
from impala_server.storage.control_pipe import ControlPipe
from impala_server.storage.process_ends import ProcessEnds

_LOG = logging.getLogger(__name__)
_EXIT_S = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """How one child is started and ended.

    Attributes:
      module: of its process; `module.process` has the function `main`.
      main: the body of a thread: takes the settings, the run and the child's ends.
      thread_name: where it is a thread.
      stop_patience_s: seconds it may take to end once it is told to.
      environment: variables it gets where the supervisor's environment does not have them.
      arguments: of its command line, after those that all children have.
      pass_fds: descriptors it gets beside its ends.
      more: further arguments of `main`, where it is a thread.
    """

    module: str
    main: str
    thread_name: str
    stop_patience_s: float
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    pass_fds: tuple[int, ...] = ()
    more: tuple[Any, ...] = ()  # Any: of the main function


def make_child_specs(
    config: TrainConfig,
    run: RunDirectory,
    objects: ObjectMemory | None,
    place: RankPlace = ALONE,
) -> dict[str, ChildSpec]:
    """Returns all children by name, in the order in which they are started and ended.

    The first one leads: its status is the run's, and the others end after it.
    """
    num_threads = choose_learner_threads(config, place)
    options = objects.option if objects is not None else ()
    fds = (objects.fd,) if objects is not None else ()
    return {
        "learner": ChildSpec(
            module="impala_server.learner",
            main="learner_main",
            thread_name="impala-controller",
            stop_patience_s=17.0,
            environment=_choose_environment(config, place, num_threads),
            arguments=(str(num_threads), place.to_argument(), *options),
            # The learner writes to the run: while it lives, also without us, nobody else may.
            pass_fds=(*fds, *run.lock_descriptors),
            more=(None, place),
        ),
        "front_end": ChildSpec(
            module="impala_server.front_end",
            main="front_end_main",
            thread_name="impala-front-end",
            stop_patience_s=6.0,  # its own patience with actors is 4 s
            # gRPC's threads parse messages of many MiB: with an arena for each, a front end that
            # was sent 10 GB in 3 MiB messages grew by 300 MiB and kept them.
            environment={"MALLOC_ARENA_MAX": "2"},
            pass_fds=fds,
        ),
    }


class Child:
    """One child.

    Attributes:
      name: in the table of children.
      spec: how it is started and ended.
      pipe: messages with it; None once it is closed.
    """

    def __init__(self, name: str, spec: ChildSpec, pipe: ControlPipe) -> None:
        """Takes over the supervisor's end of the pipe to a child that is not started yet."""
        self.name = name
        self.spec = spec
        self.pipe: ControlPipe | None = pipe
        self._body: subprocess.Popen[bytes] | threading.Thread | None = None

    @property
    def title(self) -> str:
        """Its name, for people."""
        return self.name.replace("_", "-")

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Takes over a process that was started elsewhere."""
        self._body = process

    def start_process(
        self,
        run_path: Path,
        ends: ProcessEnds,
        log_options: tuple[str, str],
        log: Path | None,
        settings: str,
    ) -> None:
        """Starts it as a process.

        Args:
          run_path: the run's folder.
          ends: passed on to it; the caller closes its own copies.
          log_options: log level and log format.
          log: file that it writes to; None: stderr.
          settings: TOML that it reads from stdin.

        Raises:
          ImpalaError: it cannot be started.
        """
        spec = self.spec
        command = [*python_command(spec.module), str(run_path), ends.to_argument()]
        with contextlib.ExitStack() as files:
            files.enter_context(starting(f"the {self.title} process"))
            output = files.enter_context(log.open("ab")) if log is not None else None
            stdin = files.enter_context(open_settings(settings))
            # A session of its own: Ctrl-C reaches the supervisor alone, which ends things in order.
            self._body = subprocess.Popen(  # noqa: S603 (our own module)
                [*command, *log_options, *spec.arguments],
                pass_fds=(*ends.fds, *spec.pass_fds),
                stdin=stdin,
                # Not the command's stdout, which belongs to its results: own networks may print.
                stdout=(subprocess.DEVNULL if sys.stderr is None else 2) if log is None else output,
                stderr=output,
                start_new_session=True,
                env={**spec.environment, **os.environ},
            )

    def start_thread(self, *arguments: Any) -> None:  # Any: of the main function
        """Starts it as a thread of this process."""
        main = getattr(importlib.import_module(f"{self.spec.module}.process"), self.spec.main)
        arguments = (*arguments, *self.spec.more)
        self._body = threading.Thread(target=main, args=arguments, name=self.spec.thread_name)
        self._body.start()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        if isinstance(self._body, threading.Thread):
            return self._body.is_alive()
        return self._body is not None and self._body.poll() is None

    @property
    def pid(self) -> int:
        """Number of its process; of this process where it is a thread of it."""
        return self._body.pid if isinstance(self._body, subprocess.Popen) else os.getpid()

    def describe_end(self) -> str:
        """Returns how it ended, in parentheses, where that is known within a second."""
        if not isinstance(self._body, subprocess.Popen):
            return ""
        try:
            code = self._body.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return ""
        return f" (signal {-code})" if code < 0 else f" (exit code {code})"

    def close_pipe(self) -> None:
        """Closes the pipe; the child notices."""
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None

    def join(self, timeout_s: float) -> bool:
        """Waits for its end, and kills a process that does not end; returns whether it did."""
        body, self._body = self._body, None
        if isinstance(body, threading.Thread):
            body.join(timeout_s)
            if body.is_alive():
                _LOG.error("%s did not end within %g s", body.name, timeout_s)
        elif body is not None:
            try:
                body.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _LOG.error("the %s process did not end in time and is killed", self.title)
                body.kill()
                body.wait()
                return False
        return True


def choose_learner_threads(config: TrainConfig, place: RankPlace = ALONE) -> int:
    """Returns how many CPU threads the learner's tensor operations take.

    Each local actor keeps one core busy; the learner gets the others, at least
    one; the learner ranks of a machine share them. Small networks gain nothing from more than one.
    """
    if config.job.learner_threads:
        return config.job.learner_threads
    return max(1, (_count_cores() - config.job.num_actors) // place.num_local)


def _choose_environment(config: TrainConfig, place: RankPlace, num_threads: int) -> dict[str, str]:
    """Returns what the learner's process finds in its environment where nobody has set it."""
    environment = {}
    if place.is_local and not place.is_alone and sys.platform == "linux":
        # gloo listens on the address of the machine's name, which may lead nowhere.
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    num_busy = num_threads * place.num_local + config.job.num_actors
    if num_threads > 1 and num_busy > _count_cores():
        # Threads of one operation spin while they wait for each other. Where they have to share
        # cores with actors, an update takes twice as long as with sleeping ones, or longer.
        environment["GOMP_SPINCOUNT"] = "0"
    return environment


def _count_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1
