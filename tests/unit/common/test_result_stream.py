"""Processes that run a user's code: results, standard modules and signals stay the project's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from impala_common.process.absolute_paths import absolute_address, absolute_path
from impala_common.process.own_modules import python_command

pytestmark = pytest.mark.timeout(60)

_RESULTS = """
import atexit, os, sys
from impala_common.process.result_stream import claim_stdout
results = claim_stdout()
atexit.register(print, "goodbye")
print("a line of an environment")
os.write(1, b"a line of native code")
os.system("echo a line of a child")
results.write("the result")
results.flush()
"""

_SIGNALS = """
import os, signal
from impala_actor.acting.signal_guard import guard_signals, set_handlers
ours = lambda number, frame: print("ours", number, flush=True)
set_handlers({signal.SIGTERM: ours, signal.SIGINT: ours})
guard_signals(signal.SIGTERM, signal.SIGINT)
signal.signal(signal.SIGTERM, lambda *unused: print("theirs"))
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *unused: print("usr1", flush=True))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    os.kill(os.getpid(), number)
"""


def run(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=50
    )


def test_stdout_holds_the_results_and_nothing_else() -> None:
    """Planted: only sys.stdout exchanged, which native code and children do not know."""
    done = run(sys.executable, "-c", _RESULTS)

    assert (done.returncode, done.stdout) == (0, "the result")
    for line in ("environment", "native code", "child", "goodbye"):
        assert line in done.stderr


def test_handlers_of_an_environment_do_not_replace_ours() -> None:
    done = run(sys.executable, "-c", _SIGNALS)

    expected = f"ours {signal.SIGTERM:d}\nours {signal.SIGINT:d}\nusr1\n"
    assert (done.returncode, done.stdout) == (0, expected)


@pytest.mark.parametrize("module", ["random", "queue", "typing", "numpy", "logging", "signal"])
def test_files_named_like_modules_do_not_reach_started_processes(
    tmp_path: Path, module: str
) -> None:
    """Planted: the command without -P."""
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('shadowed')\n")

    done = run(*python_command("impala_actor"), "--help", folder=tmp_path)

    assert done.returncode == 0, done.stderr


def test_own_modules_of_the_working_folder_are_found_in_started_processes(tmp_path: Path) -> None:
    """Planted: -P without the option that allows it."""
    (tmp_path / "my_module.py").write_text("print('mine')\n")
    (tmp_path / "random.py").write_text("raise RuntimeError('shadowed')\n")
    (tmp_path / "runner.py").write_text("")
    command = python_command("impala_actor")
    program = (
        "from impala_common.process.own_modules import import_own_module, python_command\n"
        "import_own_module('my_module'); import random; print(python_command('x')[1:-2])"
    )

    done = run(*command[:-2], "-c", program, folder=tmp_path)

    assert done.stdout == "mine\n['-P', '-X', 'impala_own_modules']\n", done.stderr


def test_own_module_may_import_its_neighbour_later_and_leave_the_folder(tmp_path: Path) -> None:
    """Seen to fail: an environment that is made by a neighbouring file, or from a lost folder."""
    (tmp_path / "first.py").write_text("def make():\n    import second\n    return second.NAME\n")
    (tmp_path / "second.py").write_text("NAME = 'neighbour'\n")
    program = (
        "import os\n"
        "from impala_common.process.own_modules import import_own_module\n"
        "print(import_own_module('first').make())\n"
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "print(import_own_module('first').make())\n"
    )

    done = run(*python_command("impala_actor")[:-2], "-c", program, folder=tmp_path)

    assert done.stdout == "neighbour\nneighbour\n", done.stderr


def test_python_that_was_told_not_to_search_here_hands_that_on(tmp_path: Path) -> None:
    program = (
        "from impala_common.process.own_modules import python_command\n"
        "print(python_command('x')[1:])"
    )

    assert run(sys.executable, "-P", "-c", program).stdout == "['-P', '-m', 'x']\n"


def test_paths_begin_at_the_root() -> None:
    assert absolute_path("") == ""
    assert absolute_path("a/b") == os.path.join(os.getcwd(), "a/b")
    assert absolute_address("localhost:1") == "localhost:1"
    assert absolute_address("unix:x.sock") == f"unix:{os.getcwd()}/x.sock"
    assert absolute_address("unix:/run/x.sock") == "unix:/run/x.sock"


@pytest.mark.parametrize(("encoding", "text"), [("ascii", "36.0 +- 8.0"), ("utf-8", "36.0 ± 8.0")])
def test_results_have_similar_characters_where_theirs_cannot_be_encoded(
    encoding: str, text: str
) -> None:
    """Before: a terminal of ASCII showed \\xb1 for ±."""
    code = (
        "from impala_common.process.standard_streams import prepare_standard_streams\n"
        "from impala_common.process.result_stream import claim_stdout\n"
        "prepare_standard_streams()\n"
        "print('36.0 \\u00b1 8.0', file=claim_stdout(), flush=True)\n"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )

    assert done.stdout.decode(encoding).strip() == text
