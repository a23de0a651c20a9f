"""`make bench`: speed of start-up and of training, written to docs/results/speed.json."""

from __future__ import annotations

import dataclasses

import tyro

from benchmarks.machine import save
from benchmarks.startup import measure_first_update, measure_help
from benchmarks.throughput import measure_throughput


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchArguments:
    """Measures start-up, and steps/s of CartPole, MinAtar Breakout and Atari Pong."""

    window_s: float = 60.0
    """Seconds of each throughput window."""
    warm_up_s: float = 15.0
    """Seconds of training before each window."""
    name: str = "speed"
    """Name of the result file; empty: not written."""


_CASES = (
    ("CartPole-v1", ()),
    ("MinAtar/Breakout-v1", ()),
    ("ALE/Pong-v5", ()),
)


def main() -> None:
    """Runs all of it."""
    arguments = tyro.cli(BenchArguments, prog="python -m benchmarks")
    first_update_s = measure_first_update(3)
    print(f"make train to the first update: {first_update_s} s")
    help_s = measure_help(5)
    print(f"impala-actor --help: {help_s} s")
    rows = []
    for env, options in _CASES:
        row = measure_throughput(
            env, *options, warm_up_s=arguments.warm_up_s, window_s=arguments.window_s
        )
        rows.append(row)
        print(f"{env}: {row['steps_per_s']:,.0f} steps/s, lag {row['policy_lag_mean']:.1f}")
        print(f"  CPU us/step {row['cpu_us_per_step']}")
        print(f"  memory MiB  {row['memory_mib']}", flush=True)
    if arguments.name:
        result = {"first_update_s": first_update_s, "help_s": help_s, "throughput": rows}
        print(save(arguments.name, {"command": "make bench", **result}))


if __name__ == "__main__":
    main()
