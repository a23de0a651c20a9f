"""`make gpu`: measures on CUDA what was never run there, within nine minutes.

Each step is a process with a limit of its own. Its rows are printed and written as they come, so
that whatever ends this command loses nothing. Without CUDA the same steps are rehearsed on the CPU,
as many at a time as there are cores: they show that the script runs, and their figures mean
nothing. Writes docs/results/gpu.json (never a rehearsal over measured figures) and
docs/performance.md.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.gpu.plan import PLAN, TOTAL_S
from benchmarks.gpu.step import Step, StepSettings
from benchmarks.gpu.step_process import make_variables, run_step
from benchmarks.suite.machine import RESULTS
from benchmarks.suite.section import Json

RESULT_PATH = RESULTS / "gpu.json"
_REHEARSAL_LIMIT_S = 300.0  # a minute and a half in all on two cores where nothing else runs
_LEAST_S = 10.0
"""A step that would have less than that is left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuArguments:
    """Measures the system on a GPU in nine minutes; rehearses it where there is none."""

    rehearse: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Rehearse on the CPU, although there is a GPU."""
    only: tuple[str, ...] = ()
    """Steps to run; the others keep their rows. Empty: all."""
    total_s: float = TOTAL_S
    """Seconds of all steps together."""
    result: Path = RESULT_PATH
    """File of the result."""
    is_kept: Annotated[bool, tyro.conf.arg(name="keep")] = True
    """Whether to write the file, and docs/performance.md where it is the usual one."""


def main() -> None:
    """Runs the plan."""
    arguments = tyro.cli(GpuArguments, prog="python -m benchmarks.gpu")
    unknown = set(arguments.only) - {step.name for step in PLAN}
    if unknown:
        names = ", ".join(step.name for step in PLAN)
        raise SystemExit(f"no step {', '.join(sorted(unknown))}; there are {names}")
    # Ended by whoever lends the machine: what a step has started must not stay on the device.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    start_s = time.monotonic()
    device = _look_for_device(PLAN[0])
    result: Json = {
        "command": shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
        "when_utc": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "is_rehearsal": arguments.rehearse or not device["has_cuda"],
        "machine": device["machine"],
        "steps": {},
    }
    before = _read(arguments.result)
    is_written = arguments.is_kept
    if before is not None and not before["is_rehearsal"] and result["is_rehearsal"]:
        print("the result file holds measured figures: a rehearsal leaves it as it is", flush=True)
        is_written = False
    if before is not None and before["is_rehearsal"] == result["is_rehearsal"] and arguments.only:
        result |= {"command": before["command"], "steps": before["steps"]}
    if result["is_rehearsal"]:
        print("no CUDA, or a rehearsal was asked for: figures mean nothing", flush=True)

    is_writing, stop = threading.Lock(), threading.Event()

    def keep(step: Step, told: Json) -> None:
        with is_writing:
            result["steps"][step.name] = told
            if is_written:
                result["duration_s"] = round(time.monotonic() - start_s, 1)
                arguments.result.write_text(json.dumps(result, indent=1) + "\n")

    def run(step: Step) -> None:
        left_s = arguments.total_s - (time.monotonic() - start_s)
        if not step.takes_rest:
            left_s -= sum(one.limit_s for one in PLAN if one.takes_rest)
        _run(step, left_s, result["is_rehearsal"], functools.partial(keep, step), stop)

    chosen = [step for step in PLAN if not arguments.only or step.name in arguments.only]
    if result["is_rehearsal"]:
        _run_at_once(run, chosen, stop)
    else:
        for step in chosen:
            run(step)
    if is_written and arguments.result.resolve() == RESULT_PATH.resolve():
        _render_page()
    failed = [name for name, told in result["steps"].items() if "error" in told]
    print(json.dumps({"duration_s": round(time.monotonic() - start_s, 1), "failed": failed}))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _look_for_device(step: Step) -> Json:
    """Returns the device's row; without torch in this process."""
    told = run_step(step, StepSettings(is_rehearsal=True, limit_s=step.limit_s))
    if not told["rows"]:
        raise SystemExit(f"torch cannot be used here: {told.get('error')}")
    row: Json = told["rows"][0]
    return row


def _run_at_once(run: Callable[[Step], None], steps: Sequence[Step], stop: threading.Event) -> None:
    """Runs steps side by side; an interruption ends those under way."""
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        list(pool.map(run, steps))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _run(
    step: Step,
    left_s: float,
    is_rehearsal: bool,
    keep: Callable[[Json], None],
    stop: threading.Event,
) -> None:
    """Runs a step and hands what it has told to `keep`, whenever a row has come."""
    limit_s = min(left_s, left_s if step.takes_rest else step.limit_s)
    if is_rehearsal:
        limit_s = _REHEARSAL_LIMIT_S
    if limit_s < _LEAST_S:
        keep({"rows": [], "error": "no time was left for it"})
        return

    def keep_rows(rows: list[Json]) -> None:
        print(json.dumps({"step": step.name, **rows[-1]}), flush=True)
        keep({"rows": rows, "error": "was not seen to end"})

    settings = StepSettings(is_rehearsal=is_rehearsal, limit_s=limit_s, words=step.words)
    told = run_step(step, settings, keep_rows, stop)
    summary = {name: value for name, value in told.items() if name != "rows"}
    print(json.dumps({"step": step.name, "num_rows": len(told["rows"]), **summary}), flush=True)
    keep(told)


def _read(path: Path) -> Json | None:
    """Returns the result that is there, if any."""
    if not path.exists():
        return None
    found: Json = json.loads(path.read_text())
    return found


def _render_page() -> None:
    """Writes docs/performance.md again, in a process that finds the project's packages."""
    command = [sys.executable, "-m", "benchmarks", "--render"]
    done = subprocess.run(
        command, env=make_variables(), capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        print(f"docs/performance.md was not written: {done.stderr[-500:]}", flush=True)


if __name__ == "__main__":
    main()
