"""The whole system with the learner on the device: steady rates, then Pong as far as time allows.

impala-train as a user starts it: actors with threads for emulators fit themselves to the cores.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.step import Emit, StepSettings
from benchmarks.rigs.training_process import TrainingProcess
from benchmarks.sections.throughput import Window, take_windows
from benchmarks.suite.cases import ENDLESS
from benchmarks.suite.section import Json, summarise
from impala_common.run import metrics

_ENV = "ALE/Pong-v5"
_WARM_UP_S = 12.0
_WINDOW_S = 8.0
_NUM_WINDOWS = 4
_LARGE = ("--preset", "atari_paper", "--batch-size", "128", "--num-storages", "512")
_SMALL = (
    *("--preset", "atari_paper", "--unroll-length", "3", "--batch-size", "2"),
    *("--num-storages", "6", "--num-actors", "1", "--envs-per-actor", "2"),
)
_END_S = 12.0
"""Seconds that a training is given to end before the step's own limit."""
_BAR = 18.0


def measure_system(settings: StepSettings, emit: Emit) -> None:
    """Emits a row for each window, and one for all of them; `settings.words` is the network.

    The precision is bfloat16, which `auto` would choose for the Nature CNN alone.
    """
    (model,) = settings.words
    # Without units for it, bfloat16 takes a CPU many times as long as float32.
    precision = "float32" if settings.is_rehearsal else "bfloat16"
    options = (*_options(settings), "--model", model, "--precision", precision)
    windows: list[Window] = []
    with tempfile.TemporaryDirectory() as folder, _start(folder, *ENDLESS, *options) as run:
        begun_s = time.monotonic()
        run.wait_for_updates(1)
        started_s = time.monotonic() - begun_s
        num_windows = 1 if settings.is_rehearsal else _NUM_WINDOWS
        for window in take_windows(
            run,
            warm_up_s=0.0 if settings.is_rehearsal else _WARM_UP_S,
            window_s=settings.window_s(_WINDOW_S),
            num_windows=num_windows,
        ):
            windows.append(window)
            emit({"steps_per_s": window.steps_per_s, "policy_lag": window.policy_lag_mean})
        emit(_summarise(windows, run, options, started_s))


def train_pong(settings: StepSettings, emit: Emit) -> None:
    """Emits a row of the curve every few seconds, until the bar is reached or time is up."""
    # The preset that learns from the fewest steps; the system's rate is the other steps' subject.
    options = _options(settings) if settings.is_rehearsal else ("--device", settings.device)
    with tempfile.TemporaryDirectory() as folder, _start(folder, *ENDLESS, *options) as run:
        begun_s = time.monotonic()
        deadline_s = begun_s + (3.0 if settings.is_rehearsal else settings.limit_s - _END_S)
        run.wait_for_updates(1)
        while True:
            time.sleep(0.2 if settings.is_rehearsal else 5.0)
            line = run.last_line()
            reached = line.get(metrics.RETURN_MEAN)
            emit(
                {
                    "time_s": round(time.monotonic() - begun_s, 1),
                    "steps": line[metrics.STEPS],
                    "steps_per_s": line.get(metrics.STEPS_PER_S),
                    "return_mean": reached,
                    "bar": _BAR,
                }
            )
            if (reached or -21.0) >= _BAR or time.monotonic() > deadline_s:
                return


def _start(folder: str, *options: str) -> TrainingProcess:
    """Returns a training that is found without an installed command."""
    path = Path(folder) / "run"
    command = [sys.executable, "-c", "from impala_server.train_cli import main; main()"]
    command += ["--env", _ENV, "--run-dir", str(path), "--quiet", "--eval-episodes", "0"]
    return TrainingProcess(_ENV, path, *options, command=command)


def _options(settings: StepSettings) -> tuple[str, ...]:
    if settings.is_rehearsal:
        return (*_SMALL, "--device", settings.device, "--log-interval-s", "0.2")
    return (*_LARGE, "--device", settings.device, "--log-interval-s", "1")


def _summarise(
    windows: list[Window], run: TrainingProcess, options: Sequence[str], started_s: float
) -> Json:
    line = run.last_line()
    shares = [window.cpu_us_by_part for window in windows]
    return {
        "all_windows": True,
        "steps_per_s": summarise([window.steps_per_s for window in windows]),
        "policy_lag": statistics.median(window.policy_lag_mean for window in windows),
        "to_first_update_s": round(started_s, 1),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_us_by_part": shares[-1],
        "cpu_us_by_process": windows[-1].cpu_us_by_process,
        "update_ms": 1e3 * (line.get(metrics.UPDATE_S) or 0.0),
        "load_ms": 1e3 * (line.get(metrics.LOAD_S) or 0.0),
        "updates_per_s": line.get(metrics.UPDATES_PER_S),
        "queue_fill": line.get(metrics.QUEUE_FILL),
        "options": list(options),
    }
