"""Makes docs/results/ladder.md of docs/results/ladder/*.json: what is learned, and how fast.

`python -m benchmarks.suite.ladder_page [--check]`; part of `make docs` and `make check-docs`.
No figure is typed by hand. A rung that was missed, or not run yet, stays on the page.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite.intervals import bootstrap_interval, interquartile_mean
from benchmarks.suite.machine import RESULTS
from benchmarks.suite.published import PUBLISHED
from benchmarks.suite.rungs import RUNGS, Rung

_ALONE = 0.2  # cores that others used
PAGE = RESULTS / "ladder.md"
_HEAD = """<!-- Made by benchmarks/suite/ladder_page.py; do not edit. -->
# The ladder: what is learned, and how fast

`make ladder RUNG=cartpole` runs a rung: impala-train once per seed, with a real server and actors,
as a user would. A seed is judged by the mean return of episodes with frozen weights. Settings were
tuned on seeds 0 to 9 ([settings.md](settings.md)); what stands here is of seeds from 100 on. IQM is
the interquartile mean, with a 95 % bootstrap interval over seeds. *To the bar* is the time from the
command until the mean return of the last training episodes (at most 100) is at the bar: the median
of the seeds that reach it. *All* is the whole command, the evaluation at its end included. Others
are the cores that other work used during the run, on average; where it is not known or large, times
are upper bounds. Published figures are of other implementations, on the terms beside them.

"""

Result = dict[str, Any]  # Any: JSON


def main() -> int:
    """Writes the page, or compares (--check); returns the exit code."""
    text = render_page(read_results())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        print(f"wrote {PAGE.name}")
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print(f"{PAGE.name} is out of date: run make docs")
    return 1


def read_results(folder: Path = RESULTS / "ladder") -> dict[str, Result]:
    """Returns the results of rungs that were run, by the rung's name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def render_page(results: dict[str, Result], rungs: dict[str, Rung] = RUNGS) -> str:
    """Returns the page."""
    heads = ["rung", "aim", "seeds at the bar", "mean", "IQM", "95 % interval", "steps"]
    heads += ["to the bar: steps", "to the bar: s", "all: s", "published"]
    lines = [_row(heads), "|---" * len(heads) + "|"]
    for name, rung in rungs.items():
        lines.append(_summarise(name, rung, results.get(name)))
    missed = [
        f"- **{name}**: {rung.tried}"
        for name, rung in rungs.items()
        if rung.tried and not _is_met(rung, results.get(name))
    ]
    if missed:
        lines += ["", "## What was tried where a bar is missed", "", *missed]
    for name, rung in rungs.items():
        if name in results:
            lines += ["", *_describe(name, rung, results[name])]
    return _HEAD + "\n".join(lines) + "\n"


def summarise_rung(rung: Rung, result: Result) -> str:
    """Returns the row of a rung in README's table.

    Times are of runs that had the cores to themselves, if there are two and more.
    """
    runs = result["runs"]
    met = sum(_judged(rung, run)["return_mean"] >= rung.bar for run in runs)
    values = np.array([_judged(rung, run)["return_mean"] for run in runs])
    alone = [run for run in runs if run.get("other_cores", math.inf) <= _ALONE]
    seconds = [run["time_to_bar_s"] for run in alone if run["time_to_bar_s"] is not None]
    text = f"mean {_show(float(values.mean()))}; {met} of {len(runs)} seeds at {rung.bar:g}"
    if len(seconds) > 1:
        of = _describe_counted(len(seconds), len(alone), len(runs))
        text += f", {statistics.median(seconds):.0f} s from the command to it (median{of})"
    steps = _show_steps(round(max(run["steps"] for run in runs), -4))
    return _row([f"{rung.env.rpartition(':')[2]}, {steps} steps", text])


def _describe_counted(num_counted: int, num_alone: int, num_runs: int) -> str:
    """Returns of which runs a median of times is; empty if all runs count."""
    if num_counted == num_runs:
        return ""
    reached = "" if num_counted == num_alone else " and reached the bar"
    return f" of the {num_counted} runs that had the cores to themselves{reached}"


def _summarise(name: str, rung: Rung, result: Result | None) -> str:
    others = _show_published(rung)
    if result is None:
        return _row([name, rung.aim, "not run yet", *[""] * 7, others])
    runs = result["runs"]
    values = np.array([_judged(rung, run)["return_mean"] for run in runs])
    low, high = bootstrap_interval([values.tolist()], interquartile_mean)
    met = int((values >= rung.bar).sum())
    count = f"{met} of {len(runs)}"
    if len(runs) < rung.num_seeds:
        count += f" ({rung.num_seeds} wanted)"
    reached = [run for run in runs if run["time_to_bar_s"] is not None]
    steps, seconds = "-", "-"
    if reached:
        steps = f"{statistics.median(run['steps_to_bar'] for run in reached):,.0f}"
        seconds = f"{statistics.median(run['time_to_bar_s'] for run in reached):.1f}"
        seconds += f" ({len(reached)} of {len(runs)})"
    return _row(
        [
            f"[{name}](#{name})",
            rung.aim,
            f"**{count}**" if met == len(runs) else count,
            _show(float(values.mean())),
            _show(float(interquartile_mean(values))),
            f"{_show(low)} to {_show(high)}",
            f"{max(run['steps'] for run in runs):,}",
            steps,
            seconds,
            f"{statistics.median(run['wall_time_s'] for run in runs):.1f}",
            others,
        ]
    )


def _describe(name: str, rung: Rung, result: Result) -> list[str]:
    machine = result["machine"]
    processors = list(dict.fromkeys(_processor(result, run) for run in result["runs"]))
    heads = ["seed", "return", "95 % interval", "lag", "to the bar: steps", "s"]
    heads += ["training s", "all s", "others", "best during training", "commit"]
    heads += ["processor"] * (len(processors) > 1)
    lines = [
        f"## {name}",
        "",
        f"`impala-train {' '.join(result['runs'][0]['options'])}` on {machine['cores']} cores, "
        f"{' or '.join(processors)}, torch {machine['packages']['torch']}; "
        f"judged by {'the most probable' if rung.greedy else 'drawn'} actions.",
        "",
        _row(heads),
        "|---" * len(heads) + "|",
    ]
    for run in result["runs"]:
        judged, best = _judged(rung, run), run["best_return_mean"]
        lines.append(
            _row(
                [
                    str(run["seed"]),
                    _show(judged["return_mean"]),
                    f"{_show(judged['confidence_low'])} to {_show(judged['confidence_high'])}",
                    f"{run['policy_lag_mean']:.1f}",
                    "-" if run["steps_to_bar"] is None else f"{run['steps_to_bar']:,}",
                    "-" if run["time_to_bar_s"] is None else f"{run['time_to_bar_s']:.1f}",
                    f"{run['training_time_s']:.1f}",
                    f"{run['wall_time_s']:.1f}",
                    f"{run['other_cores']:.2f}" if "other_cores" in run else "-",
                    "-" if best is None else f"{_show(best)} at {run['best_steps']:,}",
                    run["commit"],
                ]
                + [_processor(result, run)] * (len(processors) > 1)
            )
        )
    return lines


def _processor(result: Result, run: Result) -> str:
    """Returns what a run was made on; seeds that were added later may have had another."""
    return str(run.get("processor", result["machine"]["processor"]))


def _is_met(rung: Rung, result: Result | None) -> bool:
    if result is None:
        return False
    seconds = [run["time_to_bar_s"] for run in result["runs"] if run["time_to_bar_s"] is not None]
    is_late = rung.within_s > 0 and (not seconds or statistics.median(seconds) > rung.within_s)
    return not is_late and all(
        _judged(rung, run)["return_mean"] >= rung.bar for run in result["runs"]
    )


def _judged(rung: Rung, run: Result) -> Result:
    judged: Result = run["greedy"] if rung.greedy else run
    return judged


def _show_published(rung: Rung) -> str:
    return "; ".join(
        f"[{one.what}]({one.source}): {_show(one.return_mean)} at {_show_steps(one.steps)} "
        f"({one.terms})"
        for one in PUBLISHED.get(rung.env, ())
    )


def _show_steps(steps: int) -> str:
    return f"{steps / 1e6:g}M" if steps >= 1_000_000 else f"{steps / 1e3:g}k"


def _show(value: float) -> str:
    return f"{value:,.3f}" if abs(value) < 1.0 else f"{value:,.1f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
