"""The whole system: impala-train as a user starts it, in steady windows, beside its bound.

Each case is trained twice, in rounds over all cases, so that a start that was lucky or a machine
that was busy for a while meets all of them; half of the windows come from each.
"""

from __future__ import annotations

import os
import statistics

from benchmarks.sections.throughput import Window, measure_windows
from benchmarks.suite.cases import CASES, Case, with_options
from benchmarks.suite.section import BenchSettings, Json, summarise
from impala_common.process.devices import resolve_device

TITLE = "The whole system"
_NUM_ROUNDS = 2
_ALONE = {
    "environment": ("environment",),
    "inference": ("inference",),
    "build, encode, send": ("build", "encode"),
    "receive, decode, store": ("decode", "store"),
    "load": ("load",),
    "update": ("update",),
}
"""Parts of Window.cpu_us_by_part by the parts of part_bench that they hold."""


def measure(settings: BenchSettings) -> Json:
    """Trains every case and measures windows of it."""
    cases = with_options(CASES, settings.train_options)
    num_rounds = min(_NUM_ROUNDS, settings.num_windows)
    windows: dict[str, list[Window]] = {case.name: [] for case in cases}
    for _ in range(num_rounds):
        for case in cases:
            windows[case.name] += measure_windows(
                case.env,
                *case.options,
                warm_up_s=settings.warm_up_s,
                window_s=settings.window_s,
                num_windows=settings.num_windows // num_rounds,
                variables=case.process_variables,
            )
            speeds = [round(window.steps_per_s) for window in windows[case.name]]
            print(f"{case.name}: steps/s {speeds}", flush=True)
    parts_rows = settings.earlier.get("parts", {}).get("rows", ())
    alone = {row["case"]: row for row in parts_rows}
    rows = [_summarise_case(case, windows[case.name], alone.get(case.name)) for case in cases]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "window_s": settings.window_s,
        "warm_up_s": settings.warm_up_s,
        "rows": rows,
    }


def render(result: Json) -> str:
    """Returns tables of speed and memory, and of CPU time by part."""
    rows = result["rows"]
    num_windows = max(len(row["steps_per_s"]["windows"]) for row in rows)
    lines = [
        f"Agent steps that the learner trained on, in {num_windows} windows of "
        f"{result['window_s']:g} s after {result['warm_up_s']:g} s of training, one pass over each "
        "batch. The presets `cartpole` (2 passes), `minatar` and `atari` (4) are slower; Pong has "
        "`atari_paper` here. Spread: highest less lowest window, of the median. Memory: "
        "proportional share of all processes, in the largest window.\n",
        "| | steps/s | spread | of the bound | policy lag | MiB (learner) |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        speed, mib = row["steps_per_s"], row["pss_mib_by_process"]
        cells = [
            f"`{row['case']}`: {row['title']}",
            f"**{speed['median']:,.0f}**",
            f"{speed['spread']:.0%}",
            _or_dash(row["share_of_bound"], ".0%"),
            f"{row['policy_lag_mean']:.1f}",
            f"{sum(mib.values()):,.0f} ({_or_dash(mib.get('learner'), ',.0f')})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    rows = [row for row in rows if row["cpu_us_alone"]] or rows  # without variants
    lines += [
        "\nCPU microseconds per agent step; in brackets, the part alone. The first three are the "
        "actor's, the fourth the front end's, the next two the learner's. The sum of a process is "
        "exact; its parts are estimates from wall time.\n",
        *_table(rows, "cpu_us_by_part", ".2f", "cpu_us_alone"),
    ]
    return "\n".join(lines) + "\n"


def figures(result: Json) -> dict[str, float]:
    """Returns speed, share of the bound and memory by case."""
    named = {}
    for row in result["rows"]:
        named[f"{row['case']}_steps_per_s"] = row["steps_per_s"]["median"]
        named[f"{row['case']}_pss_gib"] = sum(row["pss_mib_by_process"].values()) / 1024
        if row["share_of_bound"] is not None:
            named[f"{row['case']}_share_of_bound"] = row["share_of_bound"]
    return named


def _summarise_case(case: Case, windows: list[Window], alone: Json | None) -> Json:
    """Returns what is kept of a case; `alone` is its row of the section parts."""
    # What a GPU does is no CPU time: there the bound of the parts says nothing.
    is_on_cpu = resolve_device(case.make_config().job.device).type == "cpu"
    bound = alone["bound_steps_per_s"] if alone and is_on_cpu else None
    speed = summarise([window.steps_per_s for window in windows])
    largest = max(windows, key=lambda window: sum(window.pss_mib_by_process.values()))
    return {
        "case": case.name,
        "title": case.title,
        "options": list(case.options),
        "variables": dict(case.variables),
        "steps_per_s": speed,
        "bound_steps_per_s": bound,
        "share_of_bound": speed["median"] / bound if bound else None,
        "policy_lag_mean": statistics.median(window.policy_lag_mean for window in windows),
        "other_cores": statistics.median(window.other_cores for window in windows),
        "cpu_us_by_part": _medians([window.cpu_us_by_part for window in windows]),
        "cpu_us_by_process": _medians([window.cpu_us_by_process for window in windows]),
        "cpu_us_alone": {
            name: sum(alone["cpu_us"][part]["median"] for part in parts)
            for name, parts in _ALONE.items()
            if alone
        },
        "pss_mib_by_process": largest.pss_mib_by_process,
    }


def _medians(values: list[dict[str, float]]) -> dict[str, float]:
    return {
        name: statistics.median(value[name] for value in values if name in value)
        for name in values[-1]
    }


def _table(rows: list[Json], key: str, form: str, other_key: str) -> list[str]:
    """Returns a table of what is under `key`, with what is under `other_key` in brackets."""
    names = list(dict.fromkeys(name for row in rows for name in row[key] if name != "command"))
    lines = ["| | " + " | ".join(names) + " | sum |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        values = row[key]
        others = row[other_key]
        cells = [_or_dash(values.get(name), form) for name in names]
        cells.append(format(sum(values.values()), form))
        for position, name in enumerate(names):
            if name in others:
                cells[position] += f" ({format(others[name], form)})"
        if others:
            cells[-1] += f" ({format(sum(others.values()), form)})"
        lines.append("| " + " | ".join([f"`{row['case']}`", *cells]) + " |")
    return lines


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
