"""Makes docs/faults.md of tests/faults/rows.toml and the figures in docs/results.

    python scripts/generate_fault_table.py [--check]

Called by `make docs`, `make check-docs`, and after `make faults` and `make soak`.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from generated_page import write_or_check

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "tests" / "faults" / "rows.toml"
RESULTS = ROOT / "docs" / "results" / "faults.json"
HOSTILE = ROOT / "docs" / "results" / "hostile.json"
PAGE = ROOT / "docs" / "faults.md"

SPECIAL = {"control": "control", "learner-spared": "spared"}
"""Runs that only some rows look at, and what they are called there."""

GROUPS = {
    "Deaths of processes": range(1, 13),
    "Network": range(13, 24),
    "Host": range(24, 31),
    "Data and learning": range(31, 43),
    "Hostile and careless clients": range(43, 65),
    "Long runs": range(65, 69),
    "False numbers, false evaluations, false learners": range(69, 77),
    "Thin actors and policy servers": range(77, 79),
    "Learner ranks": range(79, 85),
}

_HEAD = """<!-- Made by scripts/generate_fault_table.py; do not edit. -->
# Faults, and what comes of them

With this page you know how each promise of [guarantees.md](guarantees.md) was tried: the fault,
what is to happen, what did, and the test or command that does it again. `nemesis` is `make faults`
or `make soak`: a learner server and four actors as real processes on a toy environment, a proxy
before each actor, faults drawn from a seed, and a checker that compares the records of actors,
front end and learner, unroll by unroll
([ADR 0020](adr/0020-failpoints-and-one-history-checker.md)). Tests are functions below tests/.
"""


class Row(NamedTuple):
    """One row of the table."""

    number: int
    fault: str
    expected: str
    tests: list[str]
    measured: str
    limit: str = ""


def read_rows() -> list[Row]:
    """Returns all rows, by number.

    Raises:
      ValueError: two rows have one number, or one is none of the list.
    """
    rows = sorted(Row(**row) for row in tomllib.loads(ROWS.read_text())["row"])
    numbers = [row.number for row in rows]
    if len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(1, 85)):
        raise ValueError(f"numbers of rows must be 1 to 84, each once: {numbers}")
    return rows


def render() -> str:
    """Returns the page."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    run = _choose_run({name: one for name, one in results.items() if name not in SPECIAL})
    special = {SPECIAL[name]: one for name, one in results.items() if name in SPECIAL}
    single = json.loads(HOSTILE.read_text()) if HOSTILE.exists() else {}
    hostile = single.get("rows", {})
    lines = [_HEAD, *_summarise(results)]
    if single:
        machine = single["machine"]
        facts = [f"commit {machine['commit']}", f"{machine['cores']} cores", machine["processor"]]
        facts += [single["note"]] if "note" in single else []
        lines.append(f"\nFigures of single tests (results/hostile.json): {', '.join(facts)}.")
    rows = read_rows()
    for title, numbers in GROUPS.items():
        lines.append(f"\n## {title}\n")
        lines += ["| # | fault | expected | measured | by |", "|---|---|---|---|---|"]
        lines += [
            _render_row(row, run | special | _worst(hostile.get(str(row.number), {})))
            for row in rows
            if row.number in numbers
        ]
        missing = [str(number) for number in numbers if number not in {r.number for r in rows}]
        if missing:
            lines.append(f"\nNot tried here yet: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def _choose_run(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the longest run that was completed, or what there is."""
    runs = sorted(results.values(), key=lambda run: (run["is_complete"], run["duration_s"]))
    return runs[-1] if runs else {}


def _worst(tests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures of a row's tests, of several of one name the largest number."""
    worst: dict[str, Any] = {}
    for figures in tests.values():
        for name, value in figures.items():
            is_larger = isinstance(value, int | float) and value > worst.get(name, value)
            if name not in worst or is_larger:
                worst[name] = value
    return worst


def _summarise(results: dict[str, Any]) -> list[str]:
    if not results:
        return ["No run of the nemesis is on record: `make faults`.\n"]
    lines = [
        "\n## Runs of the nemesis\n",
        "| run | minutes | actor kills | learner kills | in a save | partitions | lost | twice "
        "| torn | kill to update p95 | actors back p95 | return | violations |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in sorted(results.items()):
        recovery, faults = run.get("recovery", {}), run.get("faults", {})
        cells = [
            name if run["is_complete"] else f"{name} (cut short)",
            f"{run['duration_s'] / 60:.1f}",
            run.get("actor_kills"),
            run.get("learner_kills"),
            faults.get("learner_kill_in_save", 0),
            faults.get("partition", 0),
            *(run.get(key) for key in ("acked_and_lost", "trained_twice", "torn_and_trained")),
            recovery.get("kill_to_update_s", {}).get("p95"),
            recovery.get("back_to_actors_s", {}).get("p95"),
            run.get("mean_return"),
            run.get("num_violations"),
        ]
        lines.append("| " + " | ".join("-" if c is None else str(c) for c in cells) + " |")
    names = dict.fromkeys(_name_machine(run["machine"]) for _, run in sorted(results.items()))
    machines = {name: f"machine {letter}" for name, letter in zip(names, "ABCDEFGH", strict=False)}
    for name, run in sorted(results.items()):
        facts = [f"seed {run['seed']}", f"commit {run['machine']['commit']}"]
        facts.append(machines[_name_machine(run["machine"])])
        if "load_average_before" in run:
            facts.append(f"load {run['load_average_before']} before")
        lines.append(f"\n{name}: {', '.join(facts)}. {run.get('note', '')}".rstrip())
    lines += [f"\n{letter}: {machine}." for machine, letter in machines.items()]
    return lines


def _name_machine(machine: dict[str, Any]) -> str:
    return f"{machine['cores']} cores, {machine['processor']}"


def _render_row(row: Row, run: dict[str, Any]) -> str:
    tests = ", ".join(
        "nemesis" if test.startswith("test_nemesis_") else f"`{test}`" for test in row.tests
    )
    try:
        measured = row.measured.format_map(run)
    except KeyError:
        measured = "no run on record has it yet"
    if row.limit:
        measured += f". {row.limit}."
    return f"| {row.number} | {row.fault} | {row.expected} | {measured} | {tests} |"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render()))
