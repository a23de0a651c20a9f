"""How long a person waits: `make train` to the first update, and `impala-actor --help`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.training_process import TrainingProcess

_ROOT = Path(__file__).resolve().parents[1]


def measure_first_update(num_runs: int) -> list[float]:
    """Returns seconds from `make train` on an installed tree to the first update, per run."""
    seconds = []
    for _ in range(num_runs):
        with tempfile.TemporaryDirectory() as folder:
            options = f"--run-dir {folder}/run --log-interval-s 0.05 --eval-episodes 0 --quiet"
            command = ["make", "-C", str(_ROOT), "train", f"ARGS={options}"]
            start_s = time.monotonic()
            with TrainingProcess("", Path(folder) / "run", command=command) as run:
                run.wait_for_updates(1)
                seconds.append(round(time.monotonic() - start_s, 2))
                # make ends with its child
                run.processes()["command"].terminate()
    return seconds


def measure_help(num_runs: int) -> float:
    """Returns the median of seconds that `impala-actor --help` takes."""
    command = [str(Path(sys.executable).with_name("impala-actor")), "--help"]
    seconds = []
    for _ in range(num_runs):
        start_s = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.monotonic() - start_s)
    return round(statistics.median(seconds), 3)
