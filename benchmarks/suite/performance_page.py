"""docs/performance.md from results and targets; no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.gpu.gpu_page import find_gpu_figures, render_gpu
from benchmarks.suite.section import Json
from benchmarks.suite.section_table import SECTIONS
from benchmarks.suite.targets import Target

_HEAD = """# Performance

With this page you know how fast each part is, and what bounds it. `make bench` writes it from
[results/performance.json](results/performance.json); targets: `benchmarks/suite/targets.toml`. A
figure is the median of several windows; what is compared was measured in turn in one run. CPU time
per step is user and system time of all threads.
"""


def render_page(
    sections: Mapping[str, Json], targets: Sequence[Target], gpu: Json | None = None
) -> str:
    """Returns the whole page.

    Args:
      sections: by name, what `section_process.measure_section` returned, and `command`, `machine`
        and `when_utc` beside it.
      targets: rows of the first table.
      gpu: the result of `make gpu`, or of its rehearsal; None: there is none.
    """
    results = {name: s["result"] for name, s in sections.items() if "result" in s}
    figures = {name: SECTIONS[name].figures(result) for name, result in results.items()}
    figures["gpu"] = find_gpu_figures(gpu)
    machines = list(dict.fromkeys(_name_machine(section) for section in sections.values()))
    usual = f"Where no machine is named: {machines[0]}.\n" if machines else ""
    parts = [_HEAD, usual, "## Targets\n", _render_targets(targets, figures)]
    for name, section in sections.items():
        machine = _name_machine(section)
        on = "" if machine == machines[0] else f" on {machine}"
        parts += [f"## {SECTIONS[name].TITLE}\n", _render_origin(section, on)]
        if name in results:
            parts.append(SECTIONS[name].render(results[name]))
        else:
            parts.append(f"Not measured: the section {section['error']}.\n")
    parts.append(render_gpu(gpu))
    return "\n".join(parts)


def _render_targets(targets: Sequence[Target], figures: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        "Ratio: measured / target, or target / measured where less is better; 1 or more is met.\n",
        "| | on | target | measured | ratio | why it falls short | others |",
        "|---|---|---|---|---|---|---|",
    ]
    for target in targets:
        judged = target.judge(figures)
        bound = target.at_least if target.at_least is not None else target.at_most
        assert bound is not None
        sign = ">=" if target.at_least is not None else "<="
        measured, ratio, reason = "not measured", "-", target.reason
        if judged.value is not None:
            measured, ratio = format(judged.value, target.form), f"{judged.ratio:.2f}"
        if judged.is_met:
            measured, reason = f"**{measured}**", ""
        lines.append(
            f"| {target.what} | {target.on} | {sign} {format(bound, target.form)} | {measured} | "
            f"{ratio} | {reason} | {target.others} |"
        )
    return "\n".join(lines) + "\n"


def _name_machine(section: Json) -> str:
    machine = section["machine"]
    packages = machine["packages"]
    names = ("torch", "numpy", "grpcio", "ale-py")
    versions = ", ".join(f"{name} {packages[name]}" for name in names)
    return (
        f"{machine['cores']} cores, {machine['processor']}, {machine['gpu'] or 'no GPU'}; "
        f"Python {machine['python']}, {versions}"
    )


def _render_origin(section: Json, on: str) -> str:
    machine = section["machine"]
    changed = " and local changes" if machine["has_local_changes"] else ""
    return (
        f"`{section['command']}`{on}, {section['when_utc']} UTC, {section['duration_s']:g} s, load "
        f"average {section['load_average_before']:g} before; commit {machine['commit']}{changed}.\n"
    )
