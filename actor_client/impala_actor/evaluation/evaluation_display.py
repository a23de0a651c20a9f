"""What impala-eval shows: a table on a terminal, else a plain or JSON line for each run.

Prints (noqa T201), as commands do.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impala_common.run.return_text import show_return

if TYPE_CHECKING:
    from impala_actor.evaluation.run_evaluation import RunEvaluation


@dataclasses.dataclass(frozen=True, slots=True)
class RunReport:
    """Everything that impala-eval made of one run.

    Attributes:
      run: its folder, as it was given.
      evaluation: None without --episodes.
      videos: files written.
      exported: files written.
      notes: remarks about the export for the user.
    """

    run: str
    evaluation: RunEvaluation | None = None
    videos: tuple[Path, ...] = ()
    exported: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Returns one flat JSON object with the requested parts only."""
        data: dict[str, Any] = {"run": self.run}
        if self.evaluation is not None:
            data |= self.evaluation.to_json()
        if self.videos:
            data["videos"] = [str(path) for path in self.videos]
        if self.exported:
            data["exported"] = [str(path) for path in self.exported]
        return data


def show_reports(reports: Sequence[RunReport], *, as_json: bool, plot: Path | None = None) -> None:
    """Prints all of them; notes go to stderr.

    Args:
      reports: one per run.
      as_json: whether stdout gets JSON lines; the path of the plot then goes to stderr.
      plot: file with the learning curves of all runs, or None.
    """
    for report in reports:
        for note in report.notes:
            print(f"note: {note}", file=sys.stderr)  # noqa: T201
    if as_json:
        for report in reports:
            print(json.dumps(report.to_json(), allow_nan=False))  # noqa: T201
        if plot is not None:
            print(f"wrote {plot}", file=sys.stderr)  # noqa: T201
        return
    results = [report.evaluation for report in reports if report.evaluation is not None]
    if results and sys.stdout.isatty():
        _print_table(results)
    else:
        for result in results:
            print(_describe(result))  # noqa: T201
    for report in reports:
        for path in (*report.videos, *report.exported):
            print(f"wrote {path}")  # noqa: T201
    if plot is not None:
        print(f"wrote {plot}")  # noqa: T201


def _describe(result: RunEvaluation) -> str:
    """Returns a result as one line of plain text."""
    evaluation = result.evaluation
    mode = "greedy" if evaluation.is_greedy else "sampled"
    cut = f", {evaluation.num_cut} CUT" if evaluation.num_cut else ""
    cut += f", {evaluation.num_lost} more LOST" if evaluation.num_lost else ""
    return (
        f"{result.run} {result.env} step {result.step}: "
        f"return {show_return(evaluation.return_mean)} "
        f"± {_format_error(result) or '?'} (95 % {_format_interval(result) or '?'}) "
        f"min {evaluation.return_min:g} max {evaluation.return_max:g} "
        f"length {evaluation.length_mean:.1f} ({evaluation.num_episodes} episodes, {mode}{cut})"
    )


def _format_interval(result: RunEvaluation) -> str:
    evaluation = result.evaluation
    if evaluation.confidence_low is None:
        return ""
    low, high = (
        show_return(bound, beside=evaluation.return_mean)
        for bound in (evaluation.confidence_low, evaluation.confidence_high)
    )
    return f"{low} to {high}"


def _format_error(result: RunEvaluation) -> str:
    error = result.evaluation.standard_error
    return "" if error is None else show_return(error, beside=result.evaluation.return_mean)


def _print_table(results: Sequence[RunEvaluation]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Evaluation with frozen weights", title_justify="left")
    for name in ("run", "environment"):
        table.add_column(name, overflow="fold")
    for name in (
        "step",
        "return",
        "std. error",
        "95 % interval",
        "min",
        "max",
        "length",
        "episodes",
    ):
        table.add_column(name, justify="right")
    table.add_column("actions")
    for result in results:
        evaluation = result.evaluation
        cut = f" ({evaluation.num_cut} cut)" if evaluation.num_cut else ""
        cut += f" ({evaluation.num_lost} more lost)" if evaluation.num_lost else ""
        table.add_row(
            result.run,
            result.env,
            f"{result.step:,}",
            show_return(evaluation.return_mean),
            _format_error(result),
            _format_interval(result),
            f"{evaluation.return_min:g}",
            f"{evaluation.return_max:g}",
            f"{evaluation.length_mean:.1f}",
            f"{evaluation.num_episodes}{cut}",
            "greedy" if evaluation.is_greedy else "sampled",
        )
    Console().print(table)
