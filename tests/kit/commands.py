"""Command: one of the project's commands as a real process, with its output and files.

Each runs in a session of its own, so that signals reach only whom they are meant for;
leaving the context kills whatever is still there, grandchildren too. Waiting is for
files and exits, with a deadline; a process of somebody else gives no other sign.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from impala_common.run import metrics
from impala_common.run.metrics import read_metrics
from impala_common.run.run_directory import RunDirectory

MODULES = {
    "impala-train": "impala_server.train_cli",
    "impala-server": "impala_server.cli",
    "impala-actor": "impala_actor.cli",
    "impala-eval": "impala_actor.eval_cli",
    "impala-evaluator": "impala_actor.evaluator_cli",
    "impala-admin": "impala_actor.admin_cli",
    "impala-policy-server": "impala_policy_server.cli",
    "impala-thin-actor": "impala_thin.cli",
}
ENV = "CartPole-v1"
FOR_EVER = "100000000"
SMALL = ["--port", "0", "--num-actors", "1", "--log-interval-s", "0.2"]
SMALL += ["--eval-interval-steps", "0"]
TRAIN = ["--env", ENV, *SMALL]
WAIT_S = 40.0
_POLL_S = 0.05


class Command:
    """A command that runs in the folder `path`, where its output goes to files."""

    def __init__(
        self,
        path: Path,
        name: str,
        *arguments: str,
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.name = name
        if (
            name in ("impala-server", "impala-actor", "impala-evaluator", "impala-policy-server")
            and "--log-format" not in arguments
        ):
            arguments = (*arguments, "--log-format", "text")  # to be read here
        self._stem = path / f"{name}-{time.monotonic_ns()}"
        code = f"import sys; from {MODULES[name]} import main; main(sys.argv[1:])"
        with self._file("out").open("w") as out, self._file("err").open("w") as err:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", code, *arguments],
                cwd=path,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._seen: dict[int, psutil.Process] = {}

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        self.children()
        for process in [*self._seen.values(), self.process]:
            try:
                process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        self.process.wait(WAIT_S)

    @property
    def out(self) -> str:
        return self._file("out").read_text()

    @property
    def err(self) -> str:
        return self._file("err").read_text()

    def _file(self, kind: str) -> Path:
        return self._stem.with_suffix(f".{kind}")

    def result(self) -> dict[str, Any]:
        """Returns the one JSON line on stdout."""
        assert self.out.count("\n") == 1, self.out
        result: dict[str, Any] = json.loads(self.out)
        return result

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Returns the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end; it said: {self.err}") from None

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def children(self, containing: str = "") -> list[psutil.Process]:
        """Returns the processes below this one whose command line contains a text."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen |= {child.pid: child for child in found}
        return [child for child in found if containing in _command_line(child)]

    def wait_until(self, is_so: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
        """Waits for what `is_so` returns to be true, while the command runs; returns it."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := is_so()):
            assert self.process.poll() is None, f"{self.name} ended: {self.err}"
            assert time.monotonic() < deadline_s, f"no {what} in {timeout_s:g} s: {self.err}"
            threading.Event().wait(_POLL_S)
        return found


def wait_for_end(processes: list[psutil.Process], timeout_s: float) -> None:
    """Waits until all have ended, whoever's children they are."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    assert not alive, f"still there: {[_command_line(process) for process in alive]}"


def newest_metric(run: Path, name: str) -> float:
    """Returns a number of the newest line of metrics.jsonl, 0 if there is none yet."""
    path = RunDirectory(run).metrics_path
    lines = read_metrics(path) if path.exists() else []
    return float(lines[-1].get(name, 0)) if lines else 0.0


def steps_of(run: RunDirectory) -> float:
    """Returns how many steps a run has trained on, by the newest line of its metrics."""
    return newest_metric(run.path, metrics.STEPS)


def free_port() -> int:
    """Returns a port that nobody listens on now, for a server that comes after its actors."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
