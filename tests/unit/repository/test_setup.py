"""make, in folders of every name, and the .venv that it sets up: nobody's own is thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 120.0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what `make setup` reads, and a .venv of the user's own, without pip."""
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("scripts/setup_venv.sh", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    (folder / ".venv" / "mine").write_text("")
    return folder


def set_up(clone: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script as far as its first installation, which finds nothing."""
    return subprocess.run(
        [str(clone / "scripts" / "setup_venv.sh")],
        env={**os.environ, "TORCH": "--no-index no-such-package", **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_own_environment_without_pip_gets_it_and_stays(clone: Path) -> None:
    """As `uv venv` makes. Before: it was removed without a question."""
    done = set_up(clone)

    assert (clone / ".venv" / "mine").exists()
    assert "no-such-package" in done.stderr, "pip was there, and looked for it"


def test_own_environment_that_cannot_get_pip_stays_and_is_named(clone: Path) -> None:
    (clone / "ensurepip.py").write_text("raise SystemExit(1)\n")

    done = set_up(clone, PYTHONPATH=str(clone))

    assert done.returncode == 1
    assert "remove .venv first" in done.stderr
    assert (clone / ".venv" / "mine").exists()


def test_make_faults_works_in_a_folder_with_a_space(tmp_path: Path) -> None:
    """With stand-ins for its programs. Before: bash took the rest of the path for a name."""
    folder = tmp_path / "my clone"
    programs = folder / ".venv" / "bin"
    for made in (programs, folder / "tests", folder / "temporary files"):
        made.mkdir(parents=True)
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv" / ".installed").write_text(f"{folder}\n")
    for name in ("pytest", "python"):
        script = f'#!/bin/sh\necho "$IMPALA_FAULT_FIGURES" >>"{tmp_path}/{name}"\n'
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)

    done = subprocess.run(
        ["make", "faults"],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "temporary files")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    figures = str(folder / "docs" / "results" / "hostile.json")
    assert (tmp_path / "pytest").read_text().splitlines() == [figures] * 2
    assert not list((folder / "temporary files").iterdir())
