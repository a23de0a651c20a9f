"""Runs one section without the suite: `python -m benchmarks.SECTION --quick`.

Prints what the suite would write; keeps nothing unless told where.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import tyro

from benchmarks.suite.machine import describe_machine
from benchmarks.suite.section import BenchSettings, Json

_QUICK = {"num_windows": 1, "window_s": 1.0, "part_window_s": 0.5, "warm_up_s": 0.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AloneArguments:
    """Measures one section of the benchmark suite."""

    quick: bool = False
    """Try every path for seconds; the figures mean nothing."""
    num_windows: int = 5
    """Windows of each measurement."""
    part_window_s: float = 1.0
    """Seconds of a window."""
    output: str = ""
    """File for the result as JSON; empty: none."""


def run_alone(
    name: str,
    measure: Callable[[BenchSettings], Json],
    render: Callable[[Json], str],
    figures: Callable[[Json], dict[str, float]],
) -> None:
    """Measures the section `name` as the command line says and prints it."""
    arguments = tyro.cli(AloneArguments, prog=f"python -m benchmarks.{name}")
    settings = BenchSettings(
        num_windows=arguments.num_windows, part_window_s=arguments.part_window_s
    )
    if arguments.quick:
        settings = dataclasses.replace(settings, is_quick=True, **_QUICK)  # type: ignore[arg-type]
    result = measure(settings)
    print(render(result))
    for figure, value in figures(result).items():
        print(f"{name}/{figure}: {value:.4g}")
    if arguments.output:
        kept = {"machine": describe_machine(), **result}
        Path(arguments.output).write_text(json.dumps(kept, indent=1) + "\n")
