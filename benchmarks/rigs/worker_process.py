"""A helper process of a benchmark: it answers JSON requests on its pipes and ends when they close.

`WorkerProcess` is the benchmark's side, `WorkerGroup` several of them. The other side is a module
of this package that is run with its settings as one JSON argument and calls `serve`. Several
workers work at the same time where all are sent a request before the first answer is received.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.suite.section import Json

_ROOT = Path(__file__).resolve().parents[2]
_ANSWER_S = 180.0
_END_S = 10.0


class WorkerProcess:
    """One helper; ended at the end of the context."""

    def __init__(
        self,
        module: str,
        settings: Json,
        pass_fds: Sequence[int] = (),
        cores: Iterable[int] | None = None,
    ) -> None:
        """Starts `python -m module SETTINGS` and waits until it is ready.

        Args:
          module: calls `serve` with the settings.
          settings: what it is told.
          pass_fds: descriptors that it inherits.
          cores: cores it may run on; None: as this process.
        """
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(settings)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=tuple(pass_fds),
        )
        self.process = psutil.Process(self._process.pid)
        if cores is not None:
            pin(self.process, cores)
        self.ready = self.receive()

    def __enter__(self) -> WorkerProcess:
        """It runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it."""
        self.close()

    @property
    def cpu_s(self) -> float:
        """CPU seconds it has taken, user and system."""
        return float(sum(self.process.cpu_times()[:2]))

    def send(self, kind: str, **fields: object) -> None:
        """Sends a request; `receive` has its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self, timeout_s: float = _ANSWER_S) -> Json:
        """Returns the answer to the oldest request.

        Raises:
          SystemExit: the helper died, or does not answer.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise SystemExit(f"{self._name} did not answer within {timeout_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} ended; see its messages above")
        answer: Json = json.loads(line)
        return answer

    def ask(self, kind: str, **fields: object) -> Json:
        """Sends a request and returns the answer."""
        self.send(kind, **fields)
        return self.receive()

    def close(self) -> None:
        """Ends it, by force where it does not end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class WorkerGroup:
    """Several helpers that share a number of actors or clients; all are ended with the context."""

    def __init__(
        self,
        module: str,
        number: int,
        num_processes: int,
        settings_of: Callable[[int, int], Json],
        cores: Iterable[int] | None = None,
    ) -> None:
        """Starts them; where one does not start, those before it are ended.

        Args:
          module: calls `serve` with its settings.
          number: actors or clients in all.
          num_processes: helpers that share them, at most `number`.
          settings_of: returns the settings of helper k, which has so many of them.
          cores: cores they may run on; None: as this process.
        """
        cores = None if cores is None else tuple(cores)
        num_processes = min(num_processes, number)
        with contextlib.ExitStack() as stack:
            self._workers = [
                stack.enter_context(WorkerProcess(module, settings_of(k, share), cores=cores))
                for k, share in enumerate(share_out(number, num_processes))
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """They run already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends them."""
        self._stack.close()

    @property
    def cpu_s(self) -> float:
        """CPU seconds they have taken together."""
        return sum(worker.cpu_s for worker in self._workers)

    def pin(self, cores: Iterable[int]) -> None:
        """Keeps them on `cores` from now on."""
        for worker in self._workers:
            pin(worker.process, cores)

    def ask(self, kind: str, timeout_s: float = _ANSWER_S, **fields: object) -> list[Json]:
        """Sends all the same request and returns the answers."""
        return self.ask_each(kind, [fields] * len(self._workers), timeout_s)

    def ask_each(
        self, kind: str, fields_of_each: Sequence[Json], timeout_s: float = _ANSWER_S
    ) -> list[Json]:
        """Sends each a request of its own and returns the answers."""
        for worker, fields in zip(self._workers, fields_of_each, strict=True):
            worker.send(kind, **fields)
        return [worker.receive(timeout_s) for worker in self._workers]

    @property
    def num_workers(self) -> int:
        """Helpers there are."""
        return len(self._workers)


def share_out(number: int, num_shares: int) -> list[int]:
    """Returns shares of a number that differ by one at most."""
    return [len(range(k, number, num_shares)) for k in range(num_shares)]


def pin(process: psutil.Process, cores: Iterable[int]) -> None:
    """Keeps a process, and what it starts from now on, on `cores`, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        for thread in process.threads():
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(thread.id, set(cores))


def serve(answer: Callable[[Json], Json], **ready: object) -> None:
    """The helper's side: says that it is ready, then answers requests until the pipe closes.

    What the helper prints by accident goes to stderr.
    """
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _write(out.write, out.flush, dict(ready))
    for line in sys.stdin:
        _write(out.write, out.flush, answer(json.loads(line)))


def _write(write: Callable[[bytes], object], flush: Callable[[], None], message: Json) -> None:
    with contextlib.suppress(BrokenPipeError):
        write(json.dumps(message).encode() + b"\n")
        flush()
