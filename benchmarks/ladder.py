"""Learning, seed by seed: `python -m benchmarks.ladder --env CartPole-v1 --seeds 100 109`.

Runs impala-train once per seed, one after the other, exactly as a user would,
and judges each run by its frozen-weight evaluation. Writes
docs/results/NAME.json and prints a table.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro

from benchmarks.machine import save


@dataclasses.dataclass(frozen=True, kw_only=True)
class LadderArguments:
    """Trains one environment with several seeds."""

    env: str = "CartPole-v1"
    """Environment id."""
    seeds: tuple[int, int] = (100, 109)
    """First and last seed."""
    bar: float = 475.0
    """Mean return over the evaluation episodes that counts as solved."""
    total_steps: int = 0
    """Environment steps per run; 0: the preset's."""
    name: str = ""
    """Name of the result file; empty: not written."""
    train_args: str = ""
    """Further options of impala-train, in one string."""


def main() -> None:
    """Runs the ladder."""
    arguments = tyro.cli(LadderArguments, prog="python -m benchmarks.ladder")
    rows = []
    print(
        f"{'seed':>5} {'steps':>9} {'return':>8} {'95 % interval':>17} {'train s':>8} {'all s':>7}"
    )
    for seed in range(arguments.seeds[0], arguments.seeds[1] + 1):
        row = _run(arguments, seed)
        rows.append(row)
        interval = f"{row['confidence_low']:.1f} to {row['confidence_high']:.1f}"
        print(
            f"{seed:>5} {row['steps']:>9,} {row['return_mean']:>8.2f} {interval:>17} "
            f"{row['training_time_s']:>8.1f} {row['wall_time_s']:>7.1f}",
            flush=True,
        )
    solved = sum(row["return_mean"] >= arguments.bar for row in rows)
    print(f"{solved} of {len(rows)} seeds reach {arguments.bar:g}")
    if arguments.name:
        command = " ".join(["python -m benchmarks.ladder", *sys.argv[1:]])
        result = {"command": command, "bar": arguments.bar, "solved": solved, "runs": rows}
        print(save(arguments.name, result))


def _run(arguments: LadderArguments, seed: int) -> dict[str, Any]:  # Any: JSON
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("impala-train")), "--env", arguments.env]
        command += ["--seed", str(seed), "--run-dir", f"{folder}/run", "--json", "--quiet"]
        if arguments.total_steps:
            command += ["--total-steps", str(arguments.total_steps)]
        command += arguments.train_args.split()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"seed {seed} failed: {done.stderr}")
        result = json.loads(done.stdout.splitlines()[-1])
    evaluation = result["evaluation"]
    kept = ("return_mean", "confidence_low", "confidence_high", "num_episodes", "return_min")
    return {
        "seed": seed,
        "steps": result["steps"],
        "training_time_s": round(result["training_time_s"], 2),
        "wall_time_s": result["wall_time_s"],
        **{name: round(evaluation[name], 2) for name in kept},
    }


if __name__ == "__main__":
    main()
