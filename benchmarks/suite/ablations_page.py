"""Makes docs/results/ablations.md of docs/results/ablations/*.json.

`python -m benchmarks.suite.ablations_page [--check]`; part of `make docs` and `make check-docs`.
No figure is typed by hand.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict

from benchmarks.suite.ablation_studies import STUDIES, AblationStudy
from benchmarks.suite.intervals import bootstrap_interval
from benchmarks.suite.machine import RESULTS
from benchmarks.suite.training_run import Row

PAGE = RESULTS / "ablations.md"
_HEAD = """<!-- Made by benchmarks/suite/ablations_page.py; do not edit. -->
# Ablations: what single settings are worth

`make ablation STUDY=passes_breakout` runs a study: impala-train once per variant and seed, with a
real server and actors. A variant is the environment's preset with the options named; a run is
judged by the mean return of 50 episodes with frozen weights and drawn actions. Seeds are from 0 on.
Intervals are 95 % bootstrap intervals of the mean over seeds. Lag is in updates. Other work shared
the two cores, so seconds are upper bounds, and variants of a study are compared by them only
roughly.

"""


def main() -> int:
    """Writes the page, or compares (--check); returns the exit code."""
    text = render_page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        print(f"wrote {PAGE.name}")
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print(f"{PAGE.name} is out of date: run make docs")
    return 1


def render_page() -> str:
    """Returns the page, of all results there are."""
    text = _HEAD
    for name, study in STUDIES.items():
        path = RESULTS / "ablations" / f"{name}.json"
        text += f"## {study.title}\n\n"
        text += _render_study(study, json.loads(path.read_text())["runs"] if path.exists() else [])
    return text.rstrip("\n") + "\n"


def _render_study(study: AblationStudy, runs: list[Row]) -> str:
    if not runs:
        return "Not run yet.\n\n"
    by_variant: dict[str, list[Row]] = defaultdict(list)
    for row in runs:
        by_variant[row["variant"]].append(row)
    commits = ", ".join(sorted({row["commit"] for row in runs}))
    text = f"`{study.env}`, {study.total_steps:,} steps; commit {commits}.\n\n"
    text += "| variant | options | returns by seed | mean | 95 % interval | lag | training s |\n"
    text += "|---|---|---|---|---|---|---|\n"
    for variant, options in study.variants.items():
        if variant in by_variant:
            text += _render_variant(variant, options, by_variant[variant])
    return text + "\n"


def _render_variant(variant: str, options: str, rows: list[Row]) -> str:
    rows = sorted(rows, key=lambda row: row["seed"])
    returns = [row["return_mean"] for row in rows]
    low, high = bootstrap_interval([returns], lambda values: values.mean(axis=-1))
    each = ", ".join(f"{value:.1f}" for value in returns)
    lag = statistics.mean(row["policy_lag_mean"] for row in rows)
    seconds = statistics.median(row["training_time_s"] for row in rows)
    shown = f"`{options}`" if options else "none"
    mean = statistics.mean(returns)
    return (
        f"| {variant} | {shown} | {each} | {mean:.1f} | {low:.1f} to {high:.1f} "
        f"| {lag:.1f} | {seconds:.0f} |\n"
    )


if __name__ == "__main__":
    sys.exit(main())
