"""A disk that takes nothing when a command starts: one line says so, and nothing is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from impala_common.process.exit_codes import CONFIG

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# Files of at most 100 bytes: the lock can be written, the settings cannot, as on a full disk.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from impala_server import cli, train_cli
sys.exit({"train": train_cli, "server": cli}[sys.argv[1]].run(sys.argv[2:]))
"""


@pytest.mark.parametrize("command", ["train", "server"])
def test_start_on_a_disk_that_takes_no_settings_is_refused_in_one_line(
    tmp_path: Path, command: str
) -> None:
    """Seen to fail: a traceback, and exit code 1."""
    options = ["--env", "CartPole-v1", "--run-dir", "run", "--port", "0", "--quiet"]
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, command, *options, "--log-format", "text"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert ended.returncode == CONFIG, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line == (
        "error: run folder is 'run' but must be a folder that can be made and written to: "
        "File too large"
    )
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["lock"]
