"""Writes docs/results/README.md and the README's table from the kept figures.

`python -m benchmarks.suite.report`, after whatever was measured anew. No figure is
typed by hand.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.suite.cases import CASES
from benchmarks.suite.ladder_page import read_results, summarise_rung
from benchmarks.suite.machine import RESULTS
from benchmarks.suite.published import PUBLISHED
from benchmarks.suite.rungs import RUNGS

_ROOT = RESULTS.parents[1]
_BEGIN, _END = "<!-- results:begin -->", "<!-- results:end -->"

Result = dict[str, Any]  # Any: JSON


def main() -> None:
    """Writes both."""
    sections = read_sections()
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    # Figures of speed, of a GPU, of faults and fuzzers have pages of their own.
    results = {
        name: result for name, result in found.items() if "command" in result and name != "gpu"
    }
    (RESULTS / "README.md").write_text(_render_page(results))
    readme = _ROOT / "README.md"
    head, rest = readme.read_text().split(_BEGIN)
    tail = rest.split(_END)[1]
    readme.write_text(f"{head}{_BEGIN}\n{_render_summary(results, sections)}{_END}{tail}")
    print("wrote docs/results/README.md and the table of README.md")


def read_sections() -> dict[str, Result]:
    """Returns the sections of `make bench` that were measured, by name."""
    path = RESULTS / "performance.json"
    sections: dict[str, Result] = {}
    if path.exists():
        sections = json.loads(path.read_text())["sections"]
    return {name: section for name, section in sections.items() if "result" in section}


def _render_summary(results: dict[str, Result], sections: dict[str, Result]) -> str:
    rows = []
    variants = {case.name for case in CASES if case.is_variant}
    ladder = read_results()
    rows += [summarise_rung(rung, ladder[name]) for name, rung in RUNGS.items() if name in ladder]
    if "system" in sections:
        rows += [
            f"| {row['title']}, one pass | {row['steps_per_s']['median']:,.0f} agent steps/s |"
            for row in sections["system"]["result"]["rows"]
            if row["case"] not in variants
        ]
    if "startup" in sections:
        first_s = sections["startup"]["result"]["first_update_s"]["median"]
        rows.append(f"| `make train` to the first update | {first_s:.1f} s |")
    if not rows:
        return ""
    table = "\n".join(["| measured on 2 cores, no GPU | |", "|---|---|", *rows])
    speeds = ""
    if "system" in sections:
        machine, day = sections["system"]["machine"], sections["system"]["when_utc"].split()[0]
        speeds = (
            f" Speeds are of {day}, commit {machine['commit']}, {machine['processor']}, torch "
            f"{machine['packages']['torch']}: [docs/performance.md](docs/performance.md)."
        )
    return (
        f"{table}\n\nReturns, with the processor, commit and seed of each run: "
        f"[docs/results/ladder.md](docs/results/ladder.md).{speeds} All: "
        "[docs/results](docs/results/README.md).\n"
    )


def _render_page(results: dict[str, Result]) -> str:
    parts = [
        "# Results\n\nEvery figure was measured by the command beside it; the JSON files hold "
        "processor, versions and commit. Written by `python -m benchmarks.suite.report`.\n",
        "\n![Learning curves, one line per seed; dotted: the bar, dashed: published A2C]"
        "(../images/learning.png)\n",
    ]
    for name, result in results.items():
        machine = result["machine"]
        parts.append(
            f"\n## {name}\n\n`{result['command']}` at commit {machine['commit']}, "
            f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}, "
            f"torch {machine['packages']['torch']}, grpcio {machine['packages']['grpcio']}.\n"
        )
        parts.append(_render_result(result))
    return "\n".join(parts)


def _render_result(result: Result) -> str:
    if "reached" in result:
        return _render_golden(result)
    if "runs" in result:
        return _render_ladder(result)
    if "median_evaluator_share" in result:
        return _render_evaluation_cost(result)
    if "processes" in result:
        return _render_memory(result)
    rows = {key: value for key, value in result.items() if key not in ("machine", "command")}
    return "```json\n" + json.dumps(rows, indent=1) + "\n```\n"


def _render_ladder(result: Result) -> str:
    has_greedy = "greedy" in result["runs"][0]
    has_lag = "policy_lag_mean" in result["runs"][0]
    heads = ["seed", "steps", "return", "95 % interval"]
    heads += ["most probable actions"] * has_greedy + ["policy lag"] * has_lag
    heads += ["training s", "all s"]
    lines = [_row(heads), "|---" * len(heads) + "|"]
    for run in result["runs"]:
        cells = [str(run["seed"]), f"{run['steps']:,}", *_judge(run)]
        if has_greedy:
            cells.append("{}, {}".format(*_judge(run["greedy"])))
        if has_lag:
            cells.append(f"{run['policy_lag_mean']:.1f}")
        lines.append(_row([*cells, f"{run['training_time_s']:.1f}", f"{run['wall_time_s']:.1f}"]))
    side = "reach" if result.get("bar_is_above", True) else "stay below"
    lines.append(f"\n{result['solved']} of {len(result['runs'])} seeds {side} {result['bar']:g}.\n")
    published = PUBLISHED.get(result.get("env", ""), ())
    if published:
        lines += [_row(["published", "steps", "return", "terms"]), "|---|---|---|---|"]
        lines += [
            f"| [{other.what}]({other.source}) | {other.steps:,} | {other.return_mean:,.2f} | "
            f"{other.terms} |"
            for other in published
        ]
        lines.append("")
    return "\n".join(lines)


def _render_golden(result: Result) -> str:
    """Returns the runs of benchmarks.studies.thin_golden: both kinds of actors, seed by seed."""
    heads = ["seed", "actors", "steps", "return", "95 % interval", "policy lag", "all s"]
    heads += ["commit", "processor"]
    lines = [_row(heads), "|---" * len(heads) + "|"]
    for run in result["runs"]:
        cells = [str(run["seed"]), run["actors"], f"{run['steps']:,}", *_judge(run)]
        cells += [f"{run['policy_lag_mean']:.1f}", f"{run['wall_time_s']:.1f}", run["commit"]]
        lines.append(_row([*cells, run.get("processor", result["machine"]["processor"])]))
    for side, reached in result["reached"].items():
        num = sum(run["actors"] == side for run in result["runs"])
        lines.append(f"\n{side} actors: {reached} of {num} seeds reach {result['bar']:g}.")
    return "\n".join([*lines, ""])


def _render_evaluation_cost(result: Result) -> str:
    lines = [
        "| steps/s without evaluation | with | ratio | evaluator's share of all CPU time |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['steps_per_s_without']:,.0f} | {row['steps_per_s_with']:,.0f} | "
        f"{row['ratio']:.3f} | {row['evaluator_cpu_share']:.1%} |"
        for row in result["rounds"]
    ]
    ratio, share = result["median_ratio"], result["median_evaluator_share"]
    lines.append(
        f"\n{result['env']}, a candidate every {result['interval_steps']:,} steps at most; "
        f"medians: ratio {ratio:.3f}, share {share:.1%}.\n"
    )
    return "\n".join(lines)


def _judge(evaluation: Result) -> tuple[str, str]:
    low, high = evaluation["confidence_low"], evaluation["confidence_high"]
    return f"{evaluation['return_mean']:.2f}", f"{low:.1f} to {high:.1f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _render_memory(result: Result) -> str:
    lines = [
        f"{result['steps']:,} steps in all.\n",
        "| process | start MiB | end MiB | highest | second half, MiB/min |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['start_mib']} | {row['end_mib']} | {row['max_mib']} | "
        f"{row['slope_mib_per_min']:+.3f} |"
        for name, row in result["processes"].items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
