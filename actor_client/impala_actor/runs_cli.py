"""impala-runs: lists the runs of a folder: environment, steps, returns, state, age.

The console script of that name. Reads files only; loads neither torch nor gRPC.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from rich.table import Table

from impala_actor.report.run_summary import RunSummary, find_runs, summarise_run
from impala_actor.result_console import ResultConsole
from impala_common.errors import ImpalaError
from impala_common.process import exit_codes
from impala_common.process.installation import show_version
from impala_common.process.standard_streams import prepare_standard_streams, reader_may_leave
from impala_common.run.return_text import show_return

PROGRAM = "impala-runs"
_COLOURS = {"running": "green", "finished": "default", "stopped": "yellow", "unreadable": "red"}
_WIDTH_ELSEWHERE = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunsArguments:
    """Command line of impala-runs."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]")] = Path("runs")
    """Folder with the folders of runs."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object per run and line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    if argv is None:
        prepare_standard_streams()
        argv = sys.argv[1:]
    code = exit_codes.OK
    with reader_may_leave():
        code = run(argv)
    return code  # noqa: RET504 (the context may end before run does)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    show_version(PROGRAM, argv)
    description = "List the runs of a folder, the one that changed last first."
    arguments = tyro.cli(RunsArguments, prog=PROGRAM, description=description, args=argv)
    try:
        summaries = [summarise_run(path) for path in find_runs(arguments.folder)]
    except ImpalaError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_codes.exit_code_of(error)
    if arguments.json:
        sys.stdout.writelines(json.dumps(summary.to_json()) + "\n" for summary in summaries)
    elif summaries:
        console = ResultConsole()
        if not console.is_terminal:  # a pipe has no width: every run is one line
            console.width = _WIDTH_ELSEWHERE
        console.print(make_table(summaries, arguments.folder))
    else:
        sys.stdout.write(f"no runs in {arguments.folder}\n")
    return exit_codes.OK


def make_table(summaries: Sequence[RunSummary], folder: Path) -> Table:
    """Returns a table with a line for each run, named by its path below `folder`."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("run", "env"):
        table.add_column(name, overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("steps", "of", "return", "best", "trained", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        below = summary.path.relative_to(folder)
        table.add_row(
            escape(summary.path.resolve().name if below == Path() else str(below)),
            escape(summary.env or "-"),
            f"[{_COLOURS.get(summary.state, 'dim')}]{summary.state}[/]",
            f"{summary.steps:,}",
            f"{summary.total_steps:,}" if summary.total_steps else "-",
            format_number(summary.return_mean),
            format_number(summary.best_return_mean),
            format_duration(summary.training_s),
            format_duration(summary.age_s),
        )
    return table


def format_number(value: float | None) -> str:
    """Returns a return for people."""
    text = show_return(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def format_duration(seconds: float | None) -> str:
    """Returns a duration for people, in its largest unit: 90 s is "1.5 min"."""
    if seconds is None:
        return "-"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
