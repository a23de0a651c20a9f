"""One run of impala-train, as a user would start it, and what it learned.

The ladder and the ablations train each of their seeds with `train_seed`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from benchmarks.suite.machine import describe_machine
from impala_common.run import metrics

_KEPT = ("return_mean", "confidence_low", "confidence_high", "num_episodes", "return_min")
_MAX_POINTS = 50
_MIN_EPISODES = 20

Row = dict[str, Any]  # Any: JSON


def train_seed(options: list[str], seed: int, bar: float, num_greedy: int = 0) -> Row:
    """Runs impala-train once; returns its evaluation, its curve, and when it reached the bar.

    Args:
      options: of impala-train, the same for all seeds.
      seed: of the run.
      bar: mean return that counts as reached.
      num_greedy: episodes played with the most probable actions, by impala-eval; 0: none.

    Raises:
      SystemExit: a command failed.
    """
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        run_path = Path(folder) / "run"
        command = [_find("impala-train"), *options, "--seed", str(seed)]
        command += ["--run-dir", str(run_path), "--json", "--quiet"]
        before_s, started_s = _read_others_s(), time.time()
        result = _call(command, f"seed {seed}")
        wall_time_s = time.time() - started_s
        other_cores = max(0.0, (_read_others_s() - before_s) / wall_time_s)
        # The learner writes it when it begins to train.
        startup_s = (run_path / "specs.json").stat().st_mtime - started_s
        row = {
            "seed": seed,
            "steps": result["steps"],
            "training_time_s": round(result["training_time_s"], 2),
            "wall_time_s": round(wall_time_s, 2),
            **_keep(result["evaluation"]),
            **_read_curve(run_path, bar, startup_s),
            "best_return_mean": result["best_return_mean"],
            "best_steps": result["best_steps"],
            "options": options,
            "other_cores": round(other_cores, 2),
            "processor": machine["processor"],
            "commit": machine["commit"],
        }
        if num_greedy:
            episodes = ["--episodes", str(num_greedy)]
            judge = [_find("impala-eval"), str(run_path), "--greedy", "--json", *episodes]
            row["greedy"] = _keep(_call(judge, f"evaluation of seed {seed}"))
    return row


def _read_others_s() -> float:
    """Returns CPU seconds that the machine has spent on all but ended processes of this one."""
    machine, mine = psutil.cpu_times(), os.times()
    busy_s = machine.user + machine.nice + machine.system + machine.irq + machine.softirq
    return float(busy_s - mine.children_user - mine.children_system)


def _find(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


def _call(command: list[str], what: str) -> Row:
    pipe = subprocess.PIPE
    with _sigterm_raises(), subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            output, errors = child.communicate()
        except BaseException:
            child.terminate()  # it ends its own processes; leaving the block waits for it
            raise
    if child.returncode:
        raise SystemExit(f"{what} failed: {errors}")
    answer: Row = json.loads(output.splitlines()[-1])
    return answer


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM an exception meanwhile, so that no child is left behind."""

    def end(unused_number: int, unused_frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep(evaluation: Row) -> Row:
    return {name: round(evaluation[name], 3) for name in _KEPT}


def _read_curve(run_path: Path, bar: float, startup_s: float) -> Row:
    """Returns the mean policy lag, when the bar was reached, and some points of the curve.

    The bar is reached where the mean return of recent training episodes is at or above it: after
    `steps_to_bar` steps, `time_to_bar_s` seconds after the command was started.
    """
    lines = metrics.read_metrics(run_path / "metrics.jsonl")
    lags = [line[metrics.POLICY_LAG_MEAN] for line in lines if metrics.POLICY_LAG_MEAN in line]
    learned = [line for line in lines if line.get(metrics.RETURN_MEAN) is not None]
    reached = next(
        (
            line
            for line in learned
            if line[metrics.RETURN_MEAN] >= bar and line[metrics.EPISODES] >= _MIN_EPISODES
        ),
        None,
    )
    points = [[line[metrics.STEPS], round(line[metrics.RETURN_MEAN], 2)] for line in learned]
    stride = -(-len(points) // _MAX_POINTS) or 1
    curve = points[::-stride][::-1]  # the last point is always one of them
    return {
        "policy_lag_mean": round(sum(lags) / len(lags), 2) if lags else 0.0,
        "steps_to_bar": None if reached is None else reached[metrics.STEPS],
        "time_to_bar_s": (
            None if reached is None else round(startup_s + reached[metrics.TIME_S], 2)
        ),
        "curve": curve,
    }
