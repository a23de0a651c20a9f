"""Builds sdist and wheel, installs them in clean environments, and trains there.

    make package

Not part of `make test`: it installs torch several times. Once with the newest versions that pip
chooses, and once with the oldest that pyproject.toml promises, except torch: IMPALA_TORCH is what
pip installs as torch ("torch" by default).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
TORCH = os.environ.get("IMPALA_TORCH", "torch")
_REQUIREMENT = re.compile(r"Requires-Dist: ([A-Za-z0-9._-]+)>=([0-9.]+)$", re.MULTILINE)


def run(*command: object, cwd: Path) -> str:
    """Returns what a command printed; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files that would be uploaded, by kind."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    run(sys.executable, "-m", "twine", "check", "--strict", *folder.iterdir(), cwd=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Path]:
    """A clean virtual environment, removed afterwards: it takes about 1 GB."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    yield folder
    shutil.rmtree(folder)


def find_lowest(wheel: Path) -> str:
    """Returns constraints that pin every dependency but torch to the version promised."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    found = dict(_REQUIREMENT.findall(archive.read(name).decode()))
    assert len(found) > 15
    del found["torch"]
    return "".join(f"{name}=={version}\n" for name, version in found.items())


@pytest.mark.parametrize(
    ("kind", "versions"), [("wheel", "newest"), ("sdist", "newest"), ("wheel", "lowest")]
)
def test_clean_installation_trains(
    built: dict[str, Path], environment: Path, tmp_path: Path, kind: str, versions: str
) -> None:
    pip = [environment / "bin" / "pip", "--disable-pip-version-check", "--quiet", "install"]
    options: list[str] = []
    if versions == "lowest":
        (tmp_path / "lowest.txt").write_text(find_lowest(built["wheel"]))
        options = ["-c", str(tmp_path / "lowest.txt")]
    run(*pip, *options, *TORCH.split(), cwd=tmp_path)
    run(*pip, *options, built[kind], cwd=tmp_path)

    command = environment / "bin" / "impala-train"
    more = ["--total-steps", "4000", "--eval-episodes", "2", "--quiet", "--json"]
    printed = run(command, "CartPole-v1", *more, "--run-dir", "run", cwd=tmp_path)

    result = json.loads(printed.splitlines()[-1])
    assert result["reason"] == "finished"
    assert result["steps"] >= 4000
    listed = run(environment / "bin" / "impala-runs", ".", "--json", cwd=tmp_path)
    assert json.loads(listed)["state"] == "finished"
    python = environment / "bin" / "python"
    code = "from impala_rl import IMPALA; print(IMPALA.load('run').predict([0, 0, 0, 0.0])[0])"
    assert run(python, "-c", code, cwd=tmp_path).strip() in ("0", "1")
