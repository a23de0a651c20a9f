"""Cluster: a learner server and actors as real processes, with a proxy before each actor.

Used by the nemesis, from one thread. What dies is started again by `revive`, as a supervisor of
containers would; the first actor is never killed, so that it lives through everything else.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from commands import Command, free_port
from faults.proxy import FaultProxy

from impala_common.process.exit_codes import OK, TEMPORARY
from impala_common.process.failpoints import VARIABLE
from impala_common.run.event_history import FOLDER_VARIABLE, ROWS_VARIABLE
from impala_common.run.run_directory import RunDirectory
from impala_common.testing.patterns import SIGNED_ID

SERVER_OPTIONS = {
    "--total-steps": 1_000_000_000,
    "--checkpoint-interval-s": 1,
    "--unroll-length": 16,
    "--batch-size": 8,
    "--num-storages": 32,
    "--num-learners": 1,
    "--envs-per-actor": 4,
    "--model": "mlp",
    "--hidden-sizes": 32,
    "--optimizer": "adam",
    "--learning-rate": 0.003,
    "--eps": 1e-5,
    "--learner-threads": 1,
    "--log-interval-s": 1,
}


class Cluster:
    """See the module.

    Attributes:
      run: the run's folder.
      history: folder of event files.
      server: the learner server's command; None while it is down.
      actors: the actors' commands, by number; None while down.
      exits: (who, exit code, when it was noticed) of everything that ended.
    """

    def __init__(self, folder: Path, num_actors: int = 4, step_ms: float = 2.0) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.run = RunDirectory(folder / "run")
        self.history = folder / "history"
        self.server: Command | None = None
        self.actors: list[Command | None] = [None] * num_actors
        self.exits: list[tuple[str, int, float]] = []
        self.server_failpoints: deque[str] = deque()  # one for each of its next lives
        self.armed = ""  # failpoints of its present life
        self.actor_failpoints: dict[int, str] = {}
        self._env_kwargs = f'{{"step_s": {step_ms / 1e3}}}'
        self._port = free_port()
        self._stack = contextlib.ExitStack()
        self._retry_at_s = 0.0

    def __enter__(self) -> Cluster:
        self.proxies = [
            self._stack.enter_context(FaultProxy(self._port)) for _ in range(len(self.actors))
        ]
        self.revive()
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        for command in [*self.actors, self.server]:
            if command is not None:
                self.resume(command)
                command.__exit__(None, None, None)
        self._stack.close()

    def revive(self) -> None:
        """Notes what has ended and starts it again."""
        if self.server is not None and self.server.process.poll() is not None:
            self._note("server", self.server)
            self.server = None
        if self.server is None and time.monotonic() >= self._retry_at_s:
            self.server = self._start_server()
        for k, actor in enumerate(self.actors):
            if actor is not None and actor.process.poll() is not None:
                self._note(f"actor-{k}", actor)
                self.actors[k] = actor = None
            if actor is None:
                self.actors[k] = self._start_actor(k)

    def server_processes(self) -> dict[str, psutil.Process]:
        """Returns the processes of the server that are alive, by name."""
        if self.server is None:
            return {}
        found = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            found["supervisor"] = psutil.Process(self.server.process.pid)
        for name in ("learner", "front_end"):
            for child in self.server.children(f"impala_server.{name}"):
                found[name] = child
        return found

    def kill_server(self, which: str) -> None:
        """Kills one process of the server, or "all"."""
        for name, process in self.server_processes().items():
            if which in (name, "all"):
                _signal(process, signal.SIGKILL)

    @staticmethod
    def resume(command: Command) -> None:
        """Lets a stopped command and its children go on."""
        for process in [*command.children(), command.process]:
            _signal(process, signal.SIGCONT)

    def heal(self) -> None:
        """Ends all faults that last, and all failpoints: a learner that has one is killed."""
        for proxy in self.proxies:
            proxy.heal()
        for command in [*self.actors, self.server]:
            if command is not None:
                self.resume(command)
        self.server_failpoints.clear()
        self.actor_failpoints.clear()
        if self.armed:
            self.kill_server("all")

    def stop(self, timeout_s: float = 30.0) -> dict[str, int]:
        """Asks all to end, the server first, and returns their exit codes."""
        codes = {}
        commands: list[tuple[str, Command | None]] = [("server", self.server)]
        commands += [(f"actor-{k}", actor) for k, actor in enumerate(self.actors)]
        for name, command in commands:
            if command is not None:
                command.interrupt(signal.SIGTERM)
                codes[name] = command.wait(timeout_s)
        return codes

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yields (name, process) of all that is alive, but for supervisors."""
        yield from self.server_processes().items()
        for k, actor in enumerate(self.actors):
            if actor is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    yield f"actor-{k}", psutil.Process(actor.process.pid)

    def _note(self, name: str, command: Command) -> None:
        code = command.process.returncode
        self.exits.append((name, code, time.monotonic()))
        if name == "server" and code == TEMPORARY:  # the killed one's learner still has the run
            self._retry_at_s = time.monotonic() + 0.2
        # Killing only the supervisor leaves its children: they save and end by themselves.
        if code in (OK, TEMPORARY) or code < 0:
            for kind in ("out", "err"):
                command._file(kind).unlink(missing_ok=True)

    def _start_server(self) -> Command:
        options = [str(one) for pair in SERVER_OPTIONS.items() for one in pair]
        failpoints = self.server_failpoints.popleft() if self.server_failpoints else ""
        self.armed = failpoints
        return Command(
            self.folder,
            "impala-server",
            *options,
            *("--run-dir", "run", "--resume-if-exists", "--port", str(self._port)),
            *("--no-tensorboard", "--quiet", "--device", "cpu"),
            **self._environment(failpoints),
        )

    def _start_actor(self, k: int) -> Command:
        address = f"127.0.0.1:{self.proxies[k].port}"
        return Command(
            self.folder,
            "impala-actor",
            *("--server", address, "--env", SIGNED_ID, "--env-kwargs", self._env_kwargs),
            *("--actor-id", f"actor-{k}", "--env-backend", "sync"),
            **self._environment(self.actor_failpoints.pop(k, "")),
        )

    def _environment(self, failpoints: str) -> dict[str, str]:
        return {FOLDER_VARIABLE: str(self.history), ROWS_VARIABLE: "1", VARIABLE: failpoints}


def _signal(process: Any, number: signal.Signals) -> None:  # Any: psutil's or subprocess's
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        process.send_signal(number)
