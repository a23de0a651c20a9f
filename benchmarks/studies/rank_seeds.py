"""CartPole on several learner ranks, seed by seed: `python -m benchmarks.studies.rank_seeds`.

Each run is an ordinary `impala-train` with `--learner-ranks`, and with the preset's batch and
storage divided among the ranks, so that an update has as many rows as that of one learner. A seed
passes if its frozen weights reach the bar over 100 episodes. Results are saved after each seed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

from benchmarks.suite.machine import save
from impala_common.config.presets import make_preset

_TIMEOUT_S = 1200.0
_TRAIN = "from impala_server.train_cli import main; main()"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedArguments:
    """Trains CartPole on several ranks."""

    num_ranks: int = 2
    """Learner ranks."""
    first_seed: int = 100
    """The first seed; the others follow."""
    num_seeds: int = 10
    """How many."""
    total_steps: int = 100_000
    """Agent steps of each run, those of all ranks together."""
    bar: float = 475.0
    """Mean return of 100 episodes with frozen weights that a seed must reach."""
    name: str = "cartpole_ranks"
    """Name of the result file; empty: not written."""


def main() -> None:
    """Trains, prints and saves."""
    arguments = tyro.cli(SeedArguments)
    runs: list[dict[str, Any]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.num_seeds):
        runs.append(_train(arguments, seed))
        sys.stdout.write(f"{json.dumps(runs[-1])}\n")
        sys.stdout.flush()
        passed = sum(run["return_mean"] >= arguments.bar for run in runs)
        if arguments.name:
            settings = dataclasses.asdict(arguments)
            save(arguments.name, {"settings": settings, "passed": passed, "runs": runs})


def _train(arguments: SeedArguments, seed: int) -> dict[str, Any]:
    rollout = make_preset("cartpole").rollout
    batch_size = rollout.batch_size // arguments.num_ranks
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-c", _TRAIN, "--env", "CartPole-v1", "--json"]
        command += ["--quiet", "--run-dir", str(run), "--seed", str(seed), "--device", "cpu"]
        command += ["--learner-ranks", str(arguments.num_ranks), "--batch-size", str(batch_size)]
        command += ["--num-storages", str(rollout.num_storages // arguments.num_ranks)]
        command += ["--num-actors", str(arguments.num_ranks)]
        command += ["--total-steps", str(arguments.total_steps)]
        start_s = time.monotonic()
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise SystemExit(f"seed {seed}: exit code {done.returncode}: {done.stderr[-2000:]}")
        result = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "seed": seed,
        "batch_size_per_rank": batch_size,
        "steps": result["steps"],
        "updates": result["updates"],
        "return_mean": result["evaluation"]["return_mean"],
        "num_episodes": result["evaluation"]["num_episodes"],
        "wall_time_s": round(time.monotonic() - start_s, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
