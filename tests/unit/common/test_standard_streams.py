"""Standard streams of commands: closed ones, encodings without ±, a reader that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
from impala_common.process.standard_streams import prepare_standard_streams
prepare_standard_streams()
file = open("opened", "w")
assert file.fileno() > 2, file.fileno()
sys.stdout.write("1 ± 2 █\\n")
sys.stderr.write("3 ± 4 ▁\\n")
sys.stdout.flush()
sys.stderr.flush()
"""


def run(
    tmp_path: Path, redirections: str = "", code: str = CODE, **more: str
) -> subprocess.CompletedProcess[bytes]:
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    return subprocess.run(
        ["sh", "-c", f'"{sys.executable}" "{script}" {redirections}'],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **more},
        capture_output=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_stream_costs_nothing_and_its_number_is_not_given_to_a_file(
    tmp_path: Path, closed: str
) -> None:
    """The fault: sys.stderr was None, and the run's lock file became descriptor 2."""
    done = run(tmp_path, closed, LC_ALL="C.UTF-8")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "opened").read_text() == ""


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_characters_that_cannot_be_encoded_are_replaced_by_similar_ones(
    tmp_path: Path, locale: str
) -> None:
    """The fault: UnicodeEncodeError on stdout."""
    done = run(tmp_path, LC_ALL=locale, PYTHONIOENCODING="ascii")

    assert done.returncode == 0, done.stderr
    assert done.stdout == b"1 +- 2 #\n"
    assert done.stderr == b"3 +- 4 _\n"


def test_messages_to_a_reader_that_is_gone_are_lost_without_an_error(tmp_path: Path) -> None:
    """The fault: BrokenPipeError: `impala-train 2>&1 | head` ended the training."""
    code = CODE + "\nfor _ in range(5): sys.stderr.write('x' * 100_000); sys.stderr.flush()\n"
    code += "open('done', 'w').close()\n"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, stderr=writing, timeout=30, check=False
        )
    finally:
        os.close(writing)

    assert process.returncode == 0
    assert (tmp_path / "done").exists()


PRINTS = """
import sys
import {module} as cli
def run(argv, **unused):
    for number in range({num_lines}):
        sys.stdout.write("x" * 1000 + chr(10))
    return 0
cli.run = run
sys.argv = ["it"]
sys.exit(cli.main())
"""
COMMANDS = (
    "impala_actor.admin_cli",
    "impala_actor.report_cli",
    "impala_actor.runs_cli",
    "impala_common.health_cli",
    "impala_server.cli",
    "impala_server.train_cli",
)


def run_unread(code: str) -> subprocess.CompletedProcess[bytes]:
    """Runs code whose stdout has no reader."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code]
    try:
        return subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("num_lines", [1, 1000])
@pytest.mark.parametrize("module", COMMANDS)
def test_command_whose_results_nobody_reads_any_more_ends_without_an_error(
    module: str, num_lines: int
) -> None:
    """As `| head` does. Before: a traceback, or a complaint about BrokenPipeError and code 120."""
    done = run_unread(PRINTS.format(module=module, num_lines=num_lines))

    assert (done.returncode, done.stderr) == (0, b"")


def test_table_that_nobody_reads_ends_without_an_error() -> None:
    """Before: rich ended the process with 1, which means a fault of this project."""
    code = (
        "from impala_actor.result_console import ResultConsole\n"
        "from impala_common.process.standard_streams import reader_may_leave\n"
        "with reader_may_leave(): ResultConsole().print('row\\n' * 20_000)"
    )
    done = run_unread(code)

    assert (done.returncode, done.stderr) == (0, b"")


def test_pipe_that_is_not_stdout_is_an_error_as_ever() -> None:
    code = (
        "from impala_common.process.standard_streams import reader_may_leave\n"
        "with reader_may_leave(): raise BrokenPipeError('of something else')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)

    assert done.returncode == 1
    assert b"of something else" in done.stderr
