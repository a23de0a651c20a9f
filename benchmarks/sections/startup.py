"""How long a person waits: `make train` to the first update, and `impala-actor --help`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rigs.training_process import TrainingProcess
from benchmarks.suite.section import BenchSettings, Json, summarise

TITLE = "Start-up"
_ROOT = Path(__file__).resolve().parents[2]


def measure(settings: BenchSettings) -> Json:
    """Starts both several times."""
    first_update = measure_first_update(1 if settings.is_quick else 5)
    help_s = measure_help(2 if settings.is_quick else 9)
    return {"first_update_s": summarise(first_update), "help_s": summarise(help_s)}


def render(result: Json) -> str:
    """Returns a line for each, lowest and highest in brackets."""
    titles = {
        "first_update_s": "`make train` to the first update",
        "help_s": "`impala-actor --help`",
    }
    lines = []
    for name, title in titles.items():
        told = result[name]
        lines.append(
            f"- {title}: {told['median']:.2f} s ({told['low']:.2f} to {told['high']:.2f})."
        )
    return "\n".join(lines) + "\n"


def figures(result: Json) -> dict[str, float]:
    """Returns both medians."""
    return {name: told["median"] for name, told in result.items()}


def measure_first_update(num_runs: int) -> list[float]:
    """Returns seconds from `make train` on an installed tree to the first update, per run."""
    seconds = []
    for _ in range(num_runs):
        with tempfile.TemporaryDirectory() as folder:
            options = f"--run-dir {folder}/run --log-interval-s 0.05 --eval-episodes 0 --quiet"
            command = ["make", "--no-print-directory", "-C", str(_ROOT), "train", f"ARGS={options}"]
            start_s = time.monotonic()
            with TrainingProcess("", Path(folder) / "run", command=command) as run:
                run.wait_for_updates(1)
                seconds.append(round(time.monotonic() - start_s, 2))
                # make ends with its child
                run.processes()["command"].terminate()
    return seconds


def measure_help(num_runs: int) -> list[float]:
    """Returns seconds that `impala-actor --help` takes, per run."""
    command = [str(Path(sys.executable).with_name("impala-actor")), "--help"]
    seconds = []
    for _ in range(num_runs):
        start_s = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(round(time.monotonic() - start_s, 3))
    return seconds
