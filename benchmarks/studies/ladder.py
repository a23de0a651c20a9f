"""Learning, seed by seed: `python -m benchmarks.studies.ladder --rung cartpole`.

Runs impala-train once per seed, one after the other, exactly as a user would, and judges each run
by its frozen-weight evaluation. A rung's result is docs/results/ladder/RUNG.json, written after
each seed, with learning curves; docs/results/ladder.md is made of them. A seed that is in the
file, trained by the same command, is not run again. Without a rung: `--env ID`, with
docs/results/NAME.json written where `--name` is given.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys

import tyro

from benchmarks.suite import ladder_page
from benchmarks.suite.machine import read_runs, save
from benchmarks.suite.rungs import FIRST_SEED, RUNGS
from benchmarks.suite.training_run import Row, train_seed
from impala_common.run.return_text import show_return


@dataclasses.dataclass(frozen=True, kw_only=True)
class LadderArguments:
    """Trains one environment with several seeds."""

    rung: str = ""
    """Rung of benchmarks/suite/rungs.py; it says all that follows but seeds."""
    env: str = "CartPole-v1"
    """Environment id."""
    seeds: tuple[int, int] | None = None
    """First and last seed; none: the rung's, or 100 to 109."""
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
    arguments = _fill_in(tyro.cli(LadderArguments, prog="python -m benchmarks.studies.ladder"))
    assert arguments.seeds is not None
    rows = _read_rows(arguments)
    print(
        f"{'seed':>5} {'steps':>9} {'return':>8} {'95 % interval':>20} {'greedy':>8} {'lag':>5} "
        f"{'to bar s':>8} {'train s':>8} {'all s':>7}"
    )
    for seed in range(arguments.seeds[0], arguments.seeds[1] + 1):
        if seed not in rows:
            greedy = arguments.eval_episodes if arguments.greedy else 0
            rows[seed] = train_seed(_options(arguments), seed, arguments.bar, greedy)
            if arguments.name:
                _save(arguments, rows)
        _print_row(rows[seed])
    solved = sum(_is_solved(arguments, row) for row in rows.values())
    side = "reach" if arguments.bar_is_above else "stay below"
    print(f"{solved} of {len(rows)} seeds {side} {arguments.bar:g}")
    if arguments.rung:
        ladder_page.main()


def _fill_in(arguments: LadderArguments) -> LadderArguments:
    """Returns the arguments with what the rung says."""
    if not arguments.rung:
        return dataclasses.replace(arguments, seeds=arguments.seeds or (100, 109))
    if arguments.rung not in RUNGS:
        raise SystemExit(f"error: no rung {arguments.rung!r}; there are {', '.join(RUNGS)}")
    rung = RUNGS[arguments.rung]
    return dataclasses.replace(
        arguments,
        env=rung.env,
        seeds=arguments.seeds or (FIRST_SEED, FIRST_SEED + rung.num_seeds - 1),
        bar=rung.bar,
        total_steps=rung.total_steps,
        greedy=rung.greedy,
        eval_episodes=rung.eval_episodes,
        name=f"ladder/{arguments.rung}",
        train_args=rung.train_args,
    )


def _read_rows(arguments: LadderArguments) -> dict[int, Row]:
    """Returns what an earlier run of the same rung has, by seed."""
    if not arguments.rung:
        return {}
    options = _options(arguments)
    known = read_runs(arguments.name)
    return {row["seed"]: row for row in known if row["options"] == options}


def _save(arguments: LadderArguments, rows: dict[int, Row]) -> None:
    runs = [rows[seed] for seed in sorted(rows)]
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.studies.ladder", *sys.argv[1:]]),
        "env": arguments.env,
        "bar": arguments.bar,
        "bar_is_above": arguments.bar_is_above,
        "solved": sum(_is_solved(arguments, row) for row in runs),
        "runs": runs,
    }
    save(arguments.name, result)


def _print_row(row: Row) -> None:
    low, high = row["confidence_low"], row["confidence_high"]
    interval = f"{show_return(low, beside=high)} to {show_return(high, beside=low)}"
    greedy = show_return(row["greedy"]["return_mean"]) if "greedy" in row else "-"
    bar_s = "-" if row["time_to_bar_s"] is None else f"{row['time_to_bar_s']:.1f}"
    print(
        f"{row['seed']:>5} {row['steps']:>9,} {show_return(row['return_mean']):>8} {interval:>20} "
        f"{greedy:>8} {row['policy_lag_mean']:>5.1f} {bar_s:>8} {row['training_time_s']:>8.1f} "
        f"{row['wall_time_s']:>7.1f}",
        flush=True,
    )


def _is_solved(arguments: LadderArguments, row: Row) -> bool:
    judged = row["greedy"] if arguments.greedy else row
    return bool(judged["return_mean"] >= arguments.bar) is arguments.bar_is_above


def _options(arguments: LadderArguments) -> list[str]:
    """Returns the options of impala-train that are the same for all seeds."""
    options = ["--env", arguments.env, "--eval-episodes", str(arguments.eval_episodes)]
    if arguments.total_steps:
        options += ["--total-steps", str(arguments.total_steps)]
    return [*options, *shlex.split(arguments.train_args)]


if __name__ == "__main__":
    main()
