"""Agent steps per second that the learner consumes in a steady window, and where CPU time goes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.training_process import TrainingProcess
from impala_common import metrics


def measure_throughput(
    env: str, *options: str, warm_up_s: float, window_s: float
) -> dict[str, Any]:  # Any: JSON
    """Trains `env` and returns steps/s over `window_s` after `warm_up_s` of training."""
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingProcess(env, Path(folder) / "run", "--total-steps", "2000000000", *options)
        with run:
            run.wait_for_updates(1)
            time.sleep(warm_up_s)
            before, cpu_before = run.last_line(), _cpu_seconds(run)
            time.sleep(window_s)
            after, cpu_after = run.last_line(), _cpu_seconds(run)
            memory = {name: p.memory_full_info().pss for name, p in run.processes().items()}
    steps = after[metrics.STEPS] - before[metrics.STEPS]
    passed_s = after[metrics.TIME_S] - before[metrics.TIME_S]
    return {
        "env": env,
        "options": " ".join(options),
        "window_s": round(passed_s, 1),
        "steps_per_s": round(steps / passed_s, 1),
        "policy_lag_mean": after.get(metrics.POLICY_LAG_MEAN),
        "cpu_us_per_step": {
            name: round(1e6 * (cpu_after[name] - cpu_before[name]) / steps, 2)
            for name in cpu_after
            if name in cpu_before
        },
        "memory_mib": {name: round(value / 2**20) for name, value in memory.items()},
    }


def _cpu_seconds(run: TrainingProcess) -> dict[str, float]:
    return {name: sum(p.cpu_times()[:2]) for name, p in run.processes().items()}
