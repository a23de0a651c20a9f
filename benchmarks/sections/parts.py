"""The parts of an agent step, each alone and through the product's own classes, and their bound.

The bound is what the cores could do if nothing but these parts cost anything and none ever
waited: cores / sum of CPU seconds per agent step. What the whole system reaches of it is in
system.py, measured in the same run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

from benchmarks.suite.cases import CASES, Case, with_options
from benchmarks.suite.section import TIMEOUT_S, BenchSettings, Json

TITLE = "The parts of an agent step, each alone"

GROUPS = {
    "environment": ("environment",),
    "inference": ("inference",),
    "wire": ("encode", "decode"),
    "batch": ("build", "store", "load"),
    "update": ("update",),
}
"""Parts by what they are told together as."""


def measure(settings: BenchSettings) -> Json:
    """Measures all parts of all cases, case after case, the parts of a case in turn."""
    cores = len(os.sched_getaffinity(0))
    rows = []
    for case in with_options(CASES, settings.train_options):
        if case.is_variant:
            continue
        row = _measure_case(case, settings)
        cpu_us = {
            group: sum(row["cpu_us"][part]["median"] for part in parts)
            for group, parts in GROUPS.items()
        }
        row |= {
            "case": case.name,
            "title": case.title,
            "cpu_us_by_group": cpu_us,
            "bound_steps_per_s": 1e6 * cores / sum(cpu_us.values()),
        }
        rows.append(row)
        told = ", ".join(f"{group} {value:.2f}" for group, value in cpu_us.items())
        print(f"{case.name}: {told} CPU us a step: at most {row['bound_steps_per_s']:,.0f} steps/s")
    return {"cores": cores, "rows": rows}


def render(result: Json) -> str:
    """Returns a table of sums; the section `system` tells each part beside the whole."""
    lines = [
        f"The bound is {result['cores']} cores / the CPU time of all parts per agent step, each "
        "run alone with one thread. The next section has them in brackets. Bytes are "
        "compressed.\n",
        "| | slots, T, B | inference | bound, steps/s | bytes per step |",
        "|---" * 5 + "|",
    ]
    for row in result["rows"]:
        cells = [
            f"`{row['case']}`",
            f"{row['num_slots']}, {row['unroll_length']}, {row['batch_size']}",
            row["inference"],
            f"**{row['bound_steps_per_s']:,.0f}**",
            f"{row['wire_bytes_per_step']:,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figures(result: Json) -> dict[str, float]:
    """Returns bounds and bytes by case."""
    named = {}
    for row in result["rows"]:
        named[f"{row['case']}_bound_steps_per_s"] = row["bound_steps_per_s"]
        named[f"{row['case']}_wire_bytes_per_step"] = row["wire_bytes_per_step"]
        for group, value in row["cpu_us_by_group"].items():
            named[f"{row['case']}_{group}_cpu_us"] = value
    return named


def _measure_case(case: Case, settings: BenchSettings) -> Json:
    asked = {
        "case": dataclasses.asdict(case),
        "num_windows": settings.num_windows,
        "window_s": settings.part_window_s,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rigs.part_bench"],
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
        env={"THP_MEM_ALLOC_ENABLE": "1", **case.process_variables},  # as the learner sets it
    )
    row: Json = json.loads(done.stdout)
    return row
