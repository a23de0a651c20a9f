"""What evaluation during training costs: `python -m benchmarks.studies.evaluation_cost`.

Trains the same environment by turns with and without evaluation, as often as impala-train evaluates
a run of a million steps by itself, and compares steps/s and the evaluator's share of CPU time.
Written to docs/results/evaluation_cost.json.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import tyro

from benchmarks.sections.throughput import measure_throughput
from benchmarks.suite.machine import save


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostArguments:
    """Measures steps/s with and without evaluation during training."""

    env: str = "CartPole-v1"
    """Environment."""
    rounds: int = 3
    """Pairs of trainings."""
    window_s: float = 30.0
    """Seconds of each throughput window."""
    warm_up_s: float = 10.0
    """Seconds of training before each window."""
    interval_steps: int = 40_000
    """Agent steps between two candidates."""
    episodes: int = 10
    """Episodes of each evaluation, with drawn actions, and as many with the likeliest."""
    max_share: float = 0.06
    """Steps that evaluations play at most, as a share of those trained."""
    name: str = "evaluation_cost"
    """Name of the result file; empty: not written."""


def main() -> None:
    """Runs all rounds."""
    arguments = tyro.cli(CostArguments, prog="python -m benchmarks.studies.evaluation_cost")
    rows = [_measure_pair(arguments) for _ in range(arguments.rounds)]
    result = {
        "command": "python -m benchmarks.studies.evaluation_cost",
        "env": arguments.env,
        "interval_steps": arguments.interval_steps,
        "rounds": rows,
        "median_ratio": round(statistics.median(row["ratio"] for row in rows), 4),
        "median_evaluator_share": round(
            statistics.median(row["evaluator_cpu_share"] for row in rows), 4
        ),
    }
    print(result)
    if arguments.name:
        print(save(arguments.name, result))


def _measure_pair(arguments: CostArguments) -> dict[str, Any]:  # Any: JSON
    """Measures without and with evaluation, one after the other."""
    speeds, share = {}, 0.0
    for name, interval in (("without", 0), ("with", arguments.interval_steps)):
        row = measure_throughput(
            arguments.env,
            "--eval-interval-steps",
            str(interval),
            "--eval-interval-episodes",
            str(arguments.episodes),
            "--eval-max-share",
            str(arguments.max_share if interval else 0),
            warm_up_s=arguments.warm_up_s,
            window_s=arguments.window_s,
        )
        speeds[name] = row["steps_per_s"]
        cpu_us = row["cpu_us_per_step"]
        if interval:
            share = cpu_us["evaluator"] / sum(cpu_us.values())
        print(f"{name} evaluation: {row['steps_per_s']:,.0f} steps/s, CPU us/step {cpu_us}")
    return {
        "steps_per_s_without": speeds["without"],
        "steps_per_s_with": speeds["with"],
        "ratio": round(speeds["with"] / speeds["without"], 4),
        "evaluator_cpu_share": round(share, 4),
    }


if __name__ == "__main__":
    main()
