"""From the command to a solved CartPole: start of all processes, training and verdict included.

Runs what `make train` runs, once per seed, and takes the time until the command has printed its
frozen-weight evaluation.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.suite.section import TIMEOUT_S, BenchSettings, Json, summarise

TITLE = "From the command to a solved CartPole"
_ENV = "CartPole-v1"
_BAR = 475.0
_SEEDS = (1, 2, 3)


def measure(settings: BenchSettings) -> Json:
    """Trains CartPole to the end once per seed."""
    options = ("--total-steps", "20000", "--eval-episodes", "8") if settings.is_quick else ()
    runs = []
    for seed in _SEEDS[:1] if settings.is_quick else _SEEDS:
        runs.append(_run(seed, *options))
        told = runs[-1]
        print(
            f"seed {seed}: {told['wall_time_s']:.1f} s, return {told['return_mean']:.1f}",
            flush=True,
        )
    return {"env": _ENV, "bar": _BAR, "runs": runs}


def render(result: Json) -> str:
    """Returns a paragraph and a line for each seed."""
    lines = [
        f"`impala-train --env {result['env']} --seed N`, with the defaults of that commit, until "
        f"it has printed its evaluation; solved: a mean return of at least {result['bar']:g}. More "
        "seeds, with 100,000 steps: [ladder.md](results/ladder.md#cartpole).\n",
    ]
    lines += [
        f"- Seed {run['seed']}: {run['wall_time_s']:.1f} s, {run['training_time_s']:.1f} of them "
        f"training; return {run['return_mean']:.1f}."
        for run in result["runs"]
    ]
    return "\n".join(lines) + "\n"


def figures(result: Json) -> dict[str, float]:
    """Returns how many seeds solved it and, where all did, how long it took."""
    seconds = [run["wall_time_s"] for run in result["runs"]]
    solved = [run for run in result["runs"] if run["return_mean"] >= result["bar"]]
    named = {"seeds_solved": float(len(solved))}
    if len(solved) == len(seconds):
        named["solved_s"] = summarise(seconds)["median"]
        named["slowest_s"] = max(seconds)
    return named


def _run(seed: int, *options: str) -> Json:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("impala-train")), "--env", _ENV]
        command += ["--seed", str(seed), "--run-dir", f"{folder}/run", "--json", "--quiet"]
        start_s = time.monotonic()
        done = subprocess.run(
            [*command, *options], stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT_S
        )
        wall_time_s = time.monotonic() - start_s
    told = json.loads(done.stdout.splitlines()[-1])
    return {
        "seed": seed,
        "steps": told["steps"],
        "return_mean": told["evaluation"]["return_mean"],
        "num_episodes": told["evaluation"]["num_episodes"],
        "training_time_s": round(told["training_time_s"], 2),
        "wall_time_s": round(wall_time_s, 2),
    }
