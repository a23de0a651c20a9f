"""Is memory flat? `python -m benchmarks.studies.memory --env CartPole-v1 --minutes 10`.

Samples the proportional share of every process of a training run and fits a
line to the second half. Writes docs/results/NAME.json.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from benchmarks.rigs.training_process import TrainingProcess
from benchmarks.suite.machine import save

_INTERVAL_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryArguments:
    """Trains for a while and watches memory."""

    env: str = "CartPole-v1"
    """Environment id."""
    minutes: float = 10.0
    """How long."""
    name: str = ""
    """Name of the result file; empty: not written."""


def main() -> None:
    """Runs the measurement."""
    arguments = tyro.cli(MemoryArguments, prog="python -m benchmarks.studies.memory")
    samples: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingProcess(arguments.env, Path(folder) / "run", "--total-steps", "2000000000")
        with run:
            run.wait_for_updates(1)
            start_s = time.monotonic()
            while (passed_s := time.monotonic() - start_s) < 60 * arguments.minutes:
                for name, process in run.processes().items():
                    mib = process.memory_full_info().pss / 2**20
                    samples.setdefault(name, []).append((passed_s, mib))
                time.sleep(_INTERVAL_S)
            steps = run.last_line().get("steps")
    rows = {name: _describe(values) for name, values in samples.items()}
    for name, row in rows.items():
        print(
            f"{name:<10} {row['start_mib']:7.1f} -> {row['end_mib']:7.1f} MiB, "
            f"second half {row['slope_mib_per_min']:+.2f} MiB/min"
        )
    if arguments.name:
        command = f"python -m benchmarks.studies.memory --env {arguments.env}"
        command += f" --minutes {arguments.minutes:g}"
        print(save(arguments.name, {"command": command, "steps": steps, "processes": rows}))


def _describe(samples: list[tuple[float, float]]) -> dict[str, float]:
    half = np.array(samples[len(samples) // 2 :])
    slope = np.polyfit(half[:, 0] / 60.0, half[:, 1], 1)[0] if len(half) > 1 else 0.0
    return {
        "start_mib": round(samples[0][1], 1),
        "end_mib": round(samples[-1][1], 1),
        "max_mib": round(max(mib for _, mib in samples), 1),
        "slope_mib_per_min": round(float(slope), 3),
    }


if __name__ == "__main__":
    main()
