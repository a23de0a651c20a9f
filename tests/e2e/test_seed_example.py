"""examples/seed_example.py runs unchanged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "seed_example.py"


@pytest.mark.extended
def test_seed_example_trains_judges_and_saves(tmp_path: Path) -> None:
    options = ["--num-train-steps", "1500", "--num-actors", "1", "--run-dir", str(tmp_path / "run")]

    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    finished, judged, saved = done.stdout.splitlines()
    assert finished.startswith("finished after 1,")
    assert judged.startswith("return ")
    assert Path(saved.removeprefix("saved: ")).parent == tmp_path / "run" / "checkpoints"
