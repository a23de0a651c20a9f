"""Runs the tests marked gpu; on a machine without CUDA they are collected and skipped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.step import Emit, StepSettings
from benchmarks.suite.section import Json

_ROOT = Path(__file__).resolve().parents[2]
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)")
_MAX_TEXT = 2000


def run_tests(settings: StepSettings, emit: Emit) -> None:
    """Emits how many tests passed, failed and were skipped, and the text where one failed."""
    # Only files that have one: the collection of all tests takes longer than these do.
    paths = (_ROOT / "tests" / "unit").rglob("test_*.py")
    files = sorted(str(path) for path in paths if "mark.gpu" in path.read_text())
    options = ["-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist", "-rs", *files]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=settings.limit_s,
        check=False,
    )
    text = done.stdout + done.stderr
    counts = {what: int(number) for number, what in _COUNT.findall(text)}
    row: Json = {"code": done.returncode, **counts}
    if done.returncode:
        row["text"] = text[-_MAX_TEXT:]
    emit(row)
