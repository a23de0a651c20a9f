"""Learning, seed by seed: `python -m benchmarks.studies.ladder --env CartPole-v1 --seeds 100 109`.

Runs impala-train once per seed, one after the other, exactly as a user would,
and judges each run by its frozen-weight evaluation. Writes
docs/results/NAME.json, learning curves included, and prints a table.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro

from benchmarks.suite.machine import save
from impala_common.run import metrics

_KEPT = ("return_mean", "confidence_low", "confidence_high", "num_episodes", "return_min")
_MAX_POINTS = 50

Row = dict[str, Any]  # Any: JSON


@dataclasses.dataclass(frozen=True, kw_only=True)
class LadderArguments:
    """Trains one environment with several seeds."""

    env: str = "CartPole-v1"
    """Environment id."""
    seeds: tuple[int, int] = (100, 109)
    """First and last seed."""
    bar: float = 475.0
    """Mean return over the evaluation episodes that counts as solved."""
    bar_is_above: bool = True
    """Whether solved is at or above the bar; else the runs are to stay below it (a control)."""
    total_steps: int = 0
    """Environment steps per run; 0: the preset's."""
    greedy: bool = False
    """Judge the most probable actions too, by impala-eval; the bar is held against them."""
    eval_episodes: int = 100
    """Episodes of each evaluation."""
    name: str = ""
    """Name of the result file; empty: not written."""
    train_args: str = ""
    """Further options of impala-train, in one string."""


def main() -> None:
    """Runs the ladder."""
    arguments = tyro.cli(LadderArguments, prog="python -m benchmarks.studies.ladder")
    rows = []
    print(
        f"{'seed':>5} {'steps':>9} {'return':>8} {'95 % interval':>20} {'greedy':>8} {'lag':>5} "
        f"{'train s':>8} {'all s':>7}"
    )
    for seed in range(arguments.seeds[0], arguments.seeds[1] + 1):
        row = _run(arguments, seed)
        rows.append(row)
        interval = f"{row['confidence_low']:.1f} to {row['confidence_high']:.1f}"
        greedy = f"{row['greedy']['return_mean']:.2f}" if "greedy" in row else "-"
        print(
            f"{seed:>5} {row['steps']:>9,} {row['return_mean']:>8.2f} {interval:>20} "
            f"{greedy:>8} {row['policy_lag_mean']:>5.1f} {row['training_time_s']:>8.1f} "
            f"{row['wall_time_s']:>7.1f}",
            flush=True,
        )
    solved = sum(_is_solved(arguments, row) for row in rows)
    side = "reach" if arguments.bar_is_above else "stay below"
    print(f"{solved} of {len(rows)} seeds {side} {arguments.bar:g}")
    if arguments.name:
        command = shlex.join(["python", "-m", "benchmarks.studies.ladder", *sys.argv[1:]])
        result = {
            "command": command,
            "env": arguments.env,
            "bar": arguments.bar,
            "bar_is_above": arguments.bar_is_above,
            "solved": solved,
            "runs": rows,
        }
        print(save(arguments.name, result))


def _is_solved(arguments: LadderArguments, row: Row) -> bool:
    judged = row["greedy"] if arguments.greedy else row
    return bool(judged["return_mean"] >= arguments.bar) is arguments.bar_is_above


def _run(arguments: LadderArguments, seed: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        run_path = Path(folder) / "run"
        command = [_find("impala-train"), "--env", arguments.env, "--seed", str(seed)]
        command += ["--run-dir", str(run_path), "--json", "--quiet"]
        command += ["--eval-episodes", str(arguments.eval_episodes)]
        if arguments.total_steps:
            command += ["--total-steps", str(arguments.total_steps)]
        result = _call([*command, *shlex.split(arguments.train_args)], f"seed {seed}")
        row = {
            "seed": seed,
            "steps": result["steps"],
            "training_time_s": round(result["training_time_s"], 2),
            "wall_time_s": result["wall_time_s"],
            **_keep(result["evaluation"]),
            **_read_curve(run_path),
        }
        if arguments.greedy:
            episodes = ["--episodes", str(arguments.eval_episodes)]
            judge = [_find("impala-eval"), str(run_path), "--greedy", "--json", *episodes]
            row["greedy"] = _keep(_call(judge, f"evaluation of seed {seed}"))
    return row


def _find(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


def _call(command: list[str], what: str) -> Row:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed: {done.stderr}")
    answer: Row = json.loads(done.stdout.splitlines()[-1])
    return answer


def _keep(evaluation: Row) -> Row:
    return {name: round(evaluation[name], 2) for name in _KEPT}


def _read_curve(run_path: Path) -> Row:
    """Returns the mean policy lag and some points (steps, mean of recent training returns)."""
    lines = metrics.read_metrics(run_path / "metrics.jsonl")
    lags = [line[metrics.POLICY_LAG_MEAN] for line in lines if metrics.POLICY_LAG_MEAN in line]
    points = [
        [line[metrics.STEPS], round(line[metrics.RETURN_MEAN], 2)]
        for line in lines
        if line.get(metrics.RETURN_MEAN) is not None
    ]
    stride = -(-len(points) // _MAX_POINTS) or 1
    curve = points[::-stride][::-1]  # the last point is always one of them
    return {
        "policy_lag_mean": round(sum(lags) / len(lags), 2) if lags else 0.0,
        "curve": curve,
    }


if __name__ == "__main__":
    main()
