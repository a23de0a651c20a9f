"""The examples of searches run: trials one after another, and a sweep of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.documentation,
    pytest.mark.timeout(300),
]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(*command: object, cwd: Path) -> str:
    """Returns what a command printed; it must succeed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_search_prunes_and_names_the_best_trial(tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    lines = run(sys.executable, EXAMPLES / "tune.py", 2, 2000, cwd=tmp_path).splitlines()

    assert [line.split(":")[0] for line in lines] == ["trial 0", "trial 1", "best"]
    assert "complete" in lines[0]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_sweep_trains_every_setting_once_and_reports(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    command = ("env", "RATES=1e-3", "SEEDS=1 2", "bash", EXAMPLES / "sweep.sh", "sweep")
    command = (*command, "--total-steps", "1000", "--eval-episodes", "0")

    first = run(*command, cwd=tmp_path)
    times = {path: path.stat().st_mtime for path in (tmp_path / "sweep").glob("*/metrics.jsonl")}
    again = run(*command, cwd=tmp_path)

    assert first.count("finished") == again.count("finished") == 2
    assert times == {path: path.stat().st_mtime for path in times}
    assert (tmp_path / "sweep" / "report.html").stat().st_size > 1_000_000
