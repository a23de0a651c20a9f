"""impala-report: writes one HTML page about one or several runs.

The console script of that name. Reads files only, of runs that train or have ended; loads neither
torch nor gRPC.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from impala_actor.report.page import make_page
from impala_actor.report.run_view import read_views
from impala_common.errors import ConfigError, ImpalaError
from impala_common.process import exit_codes
from impala_common.process.installation import show_version
from impala_common.process.standard_streams import prepare_standard_streams, reader_may_leave
from impala_common.process.utf8 import to_utf8
from impala_common.run.run_directory import write_text_atomic

PROGRAM = "impala-report"
DESCRIPTION = """Write one HTML page about runs: returns, evaluations, losses, throughput, lag, \
actors, settings and videos. The page works offline."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Command line of impala-report."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")
    ] = ()
    """Folders of runs, finished or still training."""
    output: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: RUN/report.html)")
    ] = None
    """The page; of several runs: report.html here, unless it is named."""


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
    arguments = tyro.cli(ReportArguments, prog=PROGRAM, description=DESCRIPTION, args=argv)
    if not arguments.runs:
        sys.stderr.write("error: name the folder of at least one run; impala-runs lists them\n")
        return exit_codes.USAGE
    output = arguments.output
    if output is None:
        only = len(arguments.runs) == 1
        output = arguments.runs[0] / "report.html" if only else Path("report.html")
    try:
        page = to_utf8(make_page(read_views(arguments.runs)))
        try:
            write_text_atomic(output, page)
        except OSError as error:
            raise ConfigError("--output", str(output), "a file to write", str(error)) from error
    except ImpalaError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_codes.exit_code_of(error)
    sys.stdout.write(f"wrote {output} ({len(page) / 1e6:.1f} MB)\n")
    return exit_codes.OK


if __name__ == "__main__":
    sys.exit(main())
