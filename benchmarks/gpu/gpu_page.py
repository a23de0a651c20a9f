"""The GPU half of docs/performance.md, from docs/results/gpu.json; no figure is typed by hand."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from benchmarks.suite.section import Json


def render_gpu(result: Json | None) -> str:
    """Returns the section; says so where there was no GPU."""
    lines = ["## On a GPU\n"]
    if result is None:
        lines.append("Not measured: `make gpu` has not been run.\n")
        return "\n".join(lines)
    machine = result["machine"]
    changed = " and local changes" if machine["has_local_changes"] else ""
    origin = (
        f"`make gpu` (`{result['command']}`), {result['when_utc']} UTC, "
        f"{result['duration_s']:g} s; {machine['cores']} cores, {machine['processor']}, "
        f"{machine['gpu'] or 'no GPU'}; Python {machine['python']}, torch "
        f"{machine['packages']['torch']}; commit "
        f"{machine['commit']}{changed}."
    )
    if result["is_rehearsal"]:
        lines.append(f"{_render_rehearsal(result)}\n")
        return "\n".join(lines)
    lines.append(f"{origin}\n")
    steps = result["steps"]
    for render in (_device, _learner, _vtrace, _loading, _ranks, _system):
        lines += render(steps)
    lines += _failures(steps)
    return "\n".join(lines) + "\n"


def find_gpu_figures(result: Json | None) -> dict[str, float]:
    """Returns what targets are about, by name; nothing of a rehearsal."""
    if result is None or result["is_rehearsal"]:
        return {}
    steps, found = result["steps"], {}
    for row in _learner_rows(steps):
        name = f"{row['network']}_{row['variant']}_b{row['B']}"
        if (busy := _busy(row)) is not None:
            found[f"{name}_busy"] = busy
        found[f"{name}_steps_per_s"] = row["steps_per_s"]
    busy_of_eager = [
        value
        for name, value in found.items()
        if name.endswith("_busy") and ("_bfloat16_b" in name or "_float32_b" in name)
    ]
    if busy_of_eager:
        found["learner_busy"] = max(busy_of_eager)
    for network in ("resnet", "nature"):
        for row in _rows(steps, f"system_{network}"):
            if row.get("all_windows"):
                found[f"system_{network}_steps_per_s"] = row["steps_per_s"]["median"]
    for row in _rows(steps, "vtrace"):
        if (row["T"], row["B"]) == (80, 32):
            found["vtrace_ratio"] = row["us"]["loop"]["median"] / row["us"]["scan"]["median"]
    return found


def _render_rehearsal(result: Json) -> str:
    steps = result["steps"]
    well = [name for name, told in steps.items() if "error" not in told]
    failed = [f"{name} ({told['error']})" for name, told in steps.items() if "error" in told]
    origin = f"{result['when_utc'].split()[0]}, commit {result['machine']['commit']}"
    text = (
        "**No GPU was at hand: nothing below this line was measured on one.** `make gpu` measures "
        "the learner, its parts and the whole system in nine minutes "
        "([CONTRIBUTING.md](../CONTRIBUTING.md)). Only its rehearsal ran, the same steps on the "
        f"CPU in small sizes ({origin}): {len(well)} of {len(steps)} steps ended well."
    )
    return text + (f" Not: {', '.join(failed)}." if failed else "")


def _rows(steps: Json, name: str) -> list[Json]:
    return [row for row in steps.get(name, {}).get("rows", ()) if "error" not in row]


def _learner_rows(steps: Json) -> Iterable[Json]:
    for name in steps:
        if name.startswith("learner_"):
            yield from _rows(steps, name)


def _busy(row: Json) -> float | None:
    """Returns the share of time that the device is busy: by its kernels, else by the driver."""
    by_profiler: float | None = row["busy_by_profiler"]
    by_driver: float | None = row["busy_by_driver"]
    return by_driver if by_profiler is None else by_profiler


def _device(steps: Json) -> list[str]:
    lines = []
    for row in _rows(steps, "device"):
        if row["has_cuda"]:
            lines.append(
                f"{row['name']}, {row['memory_gib']:g} GiB, compute capability "
                f"{row['capability']}, CUDA {row['cuda']}, cuDNN {row['cudnn']}; "
                f"{row['cpu_cores']} cores beside it.\n"
            )
    for row in _rows(steps, "tests"):
        lines.append(
            f"Tests marked gpu: {row.get('passed', 0)} passed, {row.get('failed', 0)} failed, "
            f"{row.get('skipped', 0)} skipped.\n"
        )
    return lines


def _learner(steps: Json) -> list[str]:
    rows = list(_learner_rows(steps))
    if not rows:
        return []
    lines = [
        "The learner alone, batches on the device already. Busy: the time of kernels by torch's "
        "profiler / the wall time, and the driver's utilisation. Compiled and graphs (CUDA graphs "
        "by torch.compile) are no settings of the learner: they say what it would gain.\n",
        "| network | variant | T | B | update ms | steps/s | spread | busy, kernels | busy, driver "
        "| memory GiB | first call s |",
        "|---" * 11 + "|",
    ]
    for row in rows:
        busy = [row["busy_by_profiler"], row["busy_by_driver"]]
        cells = [f"{value:.0%}" if value is not None else "-" for value in busy]
        lines.append(
            f"| {row['network']} | {row['variant'].replace('_', ', ')} | {row['T']} | {row['B']} "
            f"| {row['update_ms']:.2f} | {row['steps_per_s']:,} | {row['wall_us']['spread']:.0%} "
            f"| {cells[0]} | {cells[1]} | {row.get('memory_gib', 0):g} | {row['first_call_s']:g} |"
        )
    return [*lines, ""]


def _vtrace(steps: Json) -> list[str]:
    rows = _rows(steps, "vtrace")
    if not rows:
        return []
    lines = ["| V-trace's recursion | loop, us | scan, us | ratio |", "|---" * 4 + "|"]
    for row in rows:
        loop_us, scan_us = row["us"]["loop"]["median"], row["us"]["scan"]["median"]
        lines.append(
            f"| T {row['T']}, B {row['B']} | {loop_us:.0f} | {scan_us:.0f} "
            f"| {loop_us / scan_us:.1f}x |"
        )
    return [*lines, ""]


def _loading(steps: Json) -> list[str]:
    lines = []
    if rows := _rows(steps, "copies"):
        lines += [
            "Loading a batch beside updates (Nature CNN, bfloat16); hidden: the part of a load "
            "that makes no update longer.\n",
            "| B | MB | pinned | load ms | update ms | load beside updates | update beside loads "
            "| hidden |",
            "|---" * 8 + "|",
        ]
        lines += [
            f"| {row['B']} | {row['mb']:.1f} | {'yes' if row['is_pinned'] else 'no'} "
            f"| {row['load_ms']:.2f} | {row['update_ms']:.2f} | {row['load_beside_update_ms']:.2f} "
            f"| {row['update_beside_load_ms']:.2f} | {row['hidden_share']:.0%} |"
            for row in rows
        ]
        lines.append("")
    if rows := _rows(steps, "frames"):
        lines += [
            "| frames once, gathered on the device, against whole stacks | MB | ms | stacks MB "
            "| stacks ms | gain | equal |",
            "|---" * 7 + "|",
        ]
        lines += [
            f"| B {row['B']} | {row['gathered_mb']:.1f} | {row['gathered_ms']:.2f} "
            f"| {row['stacks_mb']:.1f} | {row['stacks_ms']:.2f} | {row['gain']:.1f}x "
            f"| {'yes' if row['is_equal'] else 'NO'} |"
            for row in rows
        ]
        lines.append("")
    return lines


def _ranks(steps: Json) -> list[str]:
    return [
        f"Two ranks on one device (gloo, Nature CNN, {row['num_updates']} updates): "
        f"{'right' if row['is_right'] else 'WRONG'}; weights differ by "
        f"{row['difference_to_one_learner']:.1e} from those of one learner and by "
        f"{row['difference_between_ranks']:.1e} between ranks. Of an update of "
        f"{row['update_ms']:.1f} ms, {row['exchange_ms']:.1f} ms were meetings.\n"
        for row in _rows(steps, "ranks")
    ]


def _system(steps: Json) -> list[str]:
    lines = []
    for name in ("system_resnet", "system_nature"):
        for row in _rows(steps, name):
            if not row.get("all_windows"):
                continue
            speed = row["steps_per_s"]
            lines.append(
                f"Whole system, Pong, {' '.join(row['options'])}, {row['cores']} cores: "
                f"**{speed['median']:,.0f}** agent steps/s ({speed['low']:,.0f} to "
                f"{speed['high']:,.0f}), policy lag {row['policy_lag']:.1f}, storage "
                f"{row['queue_fill']:.0%} full, update {row['update_ms']:.1f} ms.\n"
            )
    if rows := _rows(steps, "pong"):
        last = rows[-1]
        means = [row["return_mean"] for row in rows if row["return_mean"] is not None]
        best = f"{max(means):.1f}" if means else "none"
        rates = [row["steps_per_s"] for row in rows if row["steps_per_s"]]
        speed_text = f", {statistics.median(rates):,.0f} steps/s" if rates else ""
        lines.append(
            f"Pong with its preset: best mean return of training episodes {best} (bar "
            f"{last['bar']:g}) after {last['steps']:,} steps and {last['time_s']:.0f} "
            f"s{speed_text}.\n"
        )
    return lines


def _failures(steps: Json) -> list[str]:
    failed = [f"{name}: {told['error']}" for name, told in steps.items() if "error" in told]
    failed += [
        f"{name}, B {row.get('B', '-')}: {row['error']}"
        for name, told in steps.items()
        for row in told["rows"]
        if "error" in row
    ]
    return ["Not measured:\n", *(f"- {text}" for text in failed)] if failed else []
