"""docs/performance.md from results and targets; no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.gpu.gpu_page import find_gpu_figures, render_gpu
from benchmarks.suite.section import Json
from benchmarks.suite.section_table import SECTIONS
from benchmarks.suite.targets import Target

_USUAL_CORES = "2 cores"
_HEAD = """# Performance

With this page you know how fast each part is, and what bounds it. `make bench` writes it from
[results/performance.json](results/performance.json). A figure is the median of several windows, and
variants took turns ([ADR 0023](adr/0023-one-benchmark-run-with-its-own-bound.md)).
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
    usual = next(iter(sections.values()), None)
    parts = [_HEAD]
    if usual is not None:
        minutes = sum(section["duration_s"] for section in sections.values()) / 60
        loads = [section["load_average_before"] for section in sections.values()]
        parts.append(
            f"Where nothing else is said: {_name_origin(usual)}, {_name_hardware(usual)}; "
            f"{_name_versions(usual)}. All sections took {minutes:.0f} minutes; the load "
            f"before them was {min(loads):.1f} to {max(loads):.1f}.\n"
        )
    parts += ["## Targets\n", _render_targets(targets, figures)]
    for name, section in sections.items():
        parts += [f"## {SECTIONS[name].TITLE}\n", *_render_origin(section, usual or section)]
        if name in results:
            parts.append(SECTIONS[name].render(results[name]))
        else:
            parts.append(f"Not measured: the section {section['error']}.\n")
    parts.append(render_gpu(gpu))
    return "\n".join(parts)


def _render_targets(targets: Sequence[Target], figures: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        "Bold is met: its ratio is 1 or more. Others were measured earlier on the same two cores, "
        "with the same environment, network, T and B.\n",
        "| | on | target | measured | ratio | notes |",
        "|---|---|---|---|---|---|",
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
        on = "" if target.on == _USUAL_CORES else target.on
        notes = [reason, f"others: {target.others}" if target.others else ""]
        lines.append(
            f"| {target.what} | {on} | {sign} {format(bound, target.form)} | {measured} | "
            f"{ratio} | {'; '.join(filter(None, notes))} |"
        )
    return "\n".join(lines) + "\n"


def _name_hardware(section: Json) -> str:
    machine = section["machine"]
    return f"{machine['cores']} cores, {machine['processor']}, {machine['gpu'] or 'no GPU'}"


def _name_versions(section: Json) -> str:
    machine = section["machine"]
    packages = machine["packages"]
    names = ("torch", "numpy", "grpcio", "ale-py")
    versions = ", ".join(f"{name} {packages[name]}" for name in names)
    return f"Python {machine['python']}, {versions}"


def _name_origin(section: Json) -> str:
    """Returns command, day and commit."""
    machine = section["machine"]
    changed = " and local changes" if machine["has_local_changes"] else ""
    day = section["when_utc"].split()[0]
    return f"`{section['command']}`, {day}, commit {machine['commit']}{changed}"


def _render_origin(section: Json, usual: Json) -> list[str]:
    """Returns a line of what differs from the usual origin, if anything does."""
    told = [
        name(section)
        for name in (_name_origin, _name_hardware, _name_versions)
        if name(section) != name(usual)
    ]
    return ["; ".join(told) + ".\n"] if told else []
