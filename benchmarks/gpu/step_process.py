"""One step in a process of its own: rows of JSON on its stdout, an end by force at its limit.

`run_step` is the command's side, and keeps the rows that came before an end by force. Run as a
module with the function's name and the settings as JSON, this is the step itself. What a step
prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu.step import Step, StepSettings
from benchmarks.suite.section import Json

_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = (
    *("protos", "thin_client", "common", "server", "actor_client", "policy_server", "agent"),
)
"""Folders of the project's packages, as `dev-mode-dirs` of pyproject.toml lists them."""
_END_S = 5.0
_POLL_S = 0.2


def run_step(
    step: Step,
    settings: StepSettings,
    keep: Callable[[list[Json]], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Json:
    """Runs a step within `settings.limit_s`.

    Args:
      step: what to run.
      settings: what it is told.
      keep: called with all rows so far after each new one.
      stop: ends it by force when set.

    Returns:
      `rows`, `duration_s`, and `error` where the step did not end well.
    """
    start_s = time.monotonic()
    told = json.dumps(dataclasses.asdict(settings))
    command = [sys.executable, "-m", "benchmarks.gpu.step_process", step.function, told]
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=make_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    rows: list[Json] = []
    try:
        deadline_s = start_s + settings.limit_s
        is_whole = _read_rows(process, rows, deadline_s, keep, stop or threading.Event())
    finally:
        _end(process)
    told_back: Json = {"rows": rows, "duration_s": round(time.monotonic() - start_s, 1)}
    if stop is not None and stop.is_set():
        told_back["error"] = "interrupted"
    elif not is_whole:
        told_back["error"] = f"ended by force after {settings.limit_s:.0f} s"
    elif process.returncode:
        told_back["error"] = f"ended with {process.returncode}; its messages are above"
    return told_back


def make_variables() -> dict[str, str]:
    """Returns the variables of a step's process: it finds the packages, installed or not."""
    folders = [str(_ROOT), *(str(_ROOT / name) for name in _SOURCES)]
    given = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *([given] if given else [])])}


def _read_rows(
    process: subprocess.Popen[bytes],
    rows: list[Json],
    deadline_s: float,
    keep: Callable[[list[Json]], None],
    stop: threading.Event,
) -> bool:
    """Reads rows until the process closes its end; False if the deadline or `stop` came first."""
    assert process.stdout is not None
    descriptor, pending = process.stdout.fileno(), b""
    while not stop.is_set() and (left_s := deadline_s - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], min(left_s, _POLL_S))[0]:
            continue
        data = os.read(descriptor, 1 << 16)
        if not data:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline_s - time.monotonic()))
                return True
            return False
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            rows.append(json.loads(line))
            keep(rows)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a step and what it has started, in order where it can."""
    assert process.stdout is not None
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what has outlived it
    process.wait()
    process.stdout.close()


def main() -> None:
    """Runs one step."""
    name, told = sys.argv[1:]
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(row: Json) -> None:
        out.write(json.dumps(row) + "\n")
        out.flush()

    asked = json.loads(told)
    asked["words"] = tuple(asked["words"])
    module, _, function = name.partition(":")
    getattr(importlib.import_module(module), function)(StepSettings(**asked), emit)


if __name__ == "__main__":
    main()
