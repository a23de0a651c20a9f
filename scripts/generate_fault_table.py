"""Makes docs/faults.md of tests/faults/rows.toml and the figures in docs/results.

    python scripts/generate_fault_table.py [--check]

Called by `make docs`, `make check-docs`, and after `make faults` and `make soak`.
"""

from __future__ import annotations

import json
import re
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

_SHORT = "faults-"
"""What names of runs of `make faults` begin with; the page has one line for all of them."""

_FORBIDDEN = ("acked_and_lost", "trained_twice", "torn_and_trained")

GROUPS = {
    "Deaths of processes": range(1, 13),
    "Network and host": range(13, 31),
    "Data and learning": range(31, 43),
    "Hostile and careless clients": range(43, 65),
    "Long runs, false numbers, false learners": range(65, 77),
    "Thin actors, policy servers, learner ranks": range(77, 85),
}

_HEAD = """<!-- Made by scripts/generate_fault_table.py; do not edit. -->
# Faults, and what comes of them

With this page you can look up how each promise of [guarantees.md](guarantees.md) was tried, with
what result, and repeat it. `nemesis` is `make faults` or `make soak`: a learner server and
four actors on a toy environment, a proxy before each actor, faults drawn from a seed, and a checker
of every unroll's history ([ADR 0020](adr/0020-failpoints-and-one-history-checker.md)). Tests are
functions below tests/."""


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
    letters = _letter_machines(results)
    lines = [_HEAD, *_summarise(results)]
    if single:
        name = _name_machine(single["machine"])
        facts = [f"commit {single['machine']['commit']}"]
        facts.append(f"machine {letters[name]}" if name in letters else name)
        facts += [single["note"]] if "note" in single else []
        lines.append(
            f"\nFigures of single tests ([hostile.json](results/hostile.json)): {', '.join(facts)}."
        )
    rows = read_rows()
    for title, numbers in GROUPS.items():
        lines.append(f"\n## {title}\n")
        lines += ["| # | fault | expected, *measured* | by |", "|---|---|---|---|"]
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
    letters = _letter_machines(results)
    lines = [
        "\n## Runs of the nemesis\n",
        "| run | machine | minutes | actor kills | learner kills | lost, torn, trained twice "
        "| update after a kill, p95 s | actors back, p95 s | return | violations |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    short = {name: run for name, run in results.items() if name.startswith(_SHORT)}
    rows = {name: [run] for name, run in sorted(results.items()) if name not in short}
    if short:
        rows |= {f"{len(short)} of `make faults`": list(short.values())}
    for name, runs in rows.items():
        cells = [name if all(run["is_complete"] for run in runs) else f"{name} (cut short)"]
        cells.append("".join(sorted({letters[_name_machine(run["machine"])] for run in runs})))
        cells += _combine(runs)
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        "\nOf several runs: sums, the largest p95, the smallest return. Each run, with seed, "
        "commit and load: [faults.json](results/faults.json). Below, `nemesis` figures are those "
        "of the longest run."
    )
    notes: dict[str, list[str]] = {}
    for name, run in sorted(results.items()):
        if run.get("note"):
            notes.setdefault(run["note"], []).append(name)
    lines += [f"\n{', '.join(those)}: {note}" for note, those in notes.items()]
    lines.append("\n" + "; ".join(f"{letter}: {name}" for name, letter in letters.items()) + ".")
    return lines


def _combine(runs: list[dict[str, Any]]) -> list[str]:
    """Returns the figures of runs as cells: sums, the largest p95, the smallest return."""
    recoveries = [run.get("recovery", {}) for run in runs]
    columns: list[tuple[Any, list[Any]]] = [
        (sum, [run.get("actor_kills") for run in runs]),
        (sum, [run.get("learner_kills") for run in runs]),
        (sum, [run.get(key) for run in runs for key in _FORBIDDEN]),
        (max, [one.get("kill_to_update_s", {}).get("p95") for one in recoveries]),
        (max, [one.get("back_to_actors_s", {}).get("p95") for one in recoveries]),
        (min, [run.get("mean_return") for run in runs]),
        (sum, [run.get("num_violations") for run in runs]),
    ]
    cells = [f"{sum(run['duration_s'] for run in runs) / 60:.1f}"]
    for combine, values in columns:
        known = [value for value in values if value is not None]
        cells.append(str(combine(known)) if known else "-")
    return cells


def _letter_machines(results: dict[str, Any]) -> dict[str, str]:
    """Returns the letter of each machine, by its name."""
    names = dict.fromkeys(_name_machine(run["machine"]) for _, run in sorted(results.items()))
    return dict(zip(names, "ABCDEFGH", strict=False))


def _name_machine(machine: dict[str, Any]) -> str:
    """Returns cores and processor; of its features only the family, which tells them apart."""
    processor = re.sub(r"; [^)]*", "", machine["processor"])
    return f"{machine['cores']} cores, {processor}"


def _render_row(row: Row, run: dict[str, Any]) -> str:
    tests = ", ".join(
        "nemesis" if test.startswith("test_nemesis_") else f"`{test}`" for test in row.tests
    )
    try:
        measured = row.measured.format_map(run)
    except KeyError:
        measured = "no run on record has it yet"
    comes = f"{row.expected}. *{measured}*" + (f". {row.limit}." if row.limit else "")
    return f"| {row.number} | {row.fault} | {comes} | {tests} |"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render()))
