"""A running impala-train as benchmarks see it: its metrics, and its processes from outside."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from impala_common.run import metrics

_STOP_S = 60.0


class TrainingProcess:
    """impala-train in a folder of its own; stopped in order at the end of the context."""

    def __init__(
        self,
        env: str,
        run_path: Path,
        *options: str,
        command: list[str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Prepares to train `env`.

        Args:
          env: environment id.
          run_path: folder of the run.
          options: further options of impala-train.
          command: what to start instead of impala-train (options are added).
          variables: all environment variables; None: those of this process.
        """
        self.run_path = run_path
        program = [str(Path(sys.executable).with_name("impala-train")), "--env", env]
        self._command = [*(command or program), *options]
        if command is None:
            self._command += ["--run-dir", str(run_path), "--quiet", "--eval-episodes", "0"]
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> TrainingProcess:
        """Starts it."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, env=self._variables)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops it in order."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_STOP_S)
        if self._process.poll() is None:
            self._process.kill()

    def lines(self) -> list[dict[str, Any]]:  # Any: JSON
        """Returns the lines of metrics with counts of the learner, oldest first."""
        path = self.run_path / "metrics.jsonl"
        lines = metrics.read_metrics(path) if path.exists() else []
        return [line for line in lines if metrics.UPDATES in line]  # evaluations have their own

    def last_line(self) -> dict[str, Any]:  # Any: JSON
        """Returns the newest of these lines, empty if there is none."""
        lines = self.lines()
        return lines[-1] if lines else {}

    def wait_for_updates(self, num_updates: int, timeout_s: float = 120.0) -> dict[str, Any]:
        """Returns the first line of metrics with at least so many updates."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            line = self.last_line()
            if line.get(metrics.UPDATES, 0) >= num_updates:
                return line
            assert self._process is not None
            if self._process.poll() is not None:
                _, text = self._process.communicate()
                raise SystemExit(f"impala-train ended: {text.decode(errors='replace')}")
            time.sleep(0.02)
        raise SystemExit(f"no {num_updates} updates within {timeout_s:g} s")

    def processes(self) -> dict[str, psutil.Process]:
        """Returns the processes by role: command, learner, front end, actor-0 ..."""
        assert self._process is not None
        command = psutil.Process(self._process.pid)
        found = {"command": command}
        for child in command.children(recursive=True):
            arguments = " ".join(child.cmdline())
            if "impala_server.learner" in arguments:
                found["learner"] = child
            elif "impala_server.front_end" in arguments:
                found["front end"] = child
            elif "evaluator_cli" in arguments:
                found["evaluator"] = child
            elif "--client-id" in arguments:
                words = child.cmdline()
                found[words[words.index("--client-id") + 1]] = child
            elif "--actor-id" in arguments:
                words = child.cmdline()
                found[words[words.index("--actor-id") + 1]] = child
            elif "impala-train" in arguments:
                found["command"] = child  # started through make
        return found
