"""Builds sdist and wheel of impala-rl and impala-rl-thin, and tries them in clean environments.

    make package

Not part of `make test`: it installs torch several times. Each is installed with the newest versions
that pip chooses, and with the oldest that pyproject.toml promises, except torch: IMPALA_TORCH is
what pip installs as torch ("torch" by default). impala-rl trains; impala-rl-thin plays, and is
judged by `impala-conformance`, against a policy server of this environment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
TORCH = os.environ.get("IMPALA_TORCH", "torch")
_REQUIREMENT = re.compile(r"Requires-Dist: ([A-Za-z0-9._-]+)>=([0-9.]+)$", re.MULTILINE)
_EXTRA_REQUIREMENT = re.compile(
    r"Requires-Dist: ([A-Za-z0-9._-]+)>=([0-9.]+); extra == '(?:gymnasium|conformance)'$",
    re.MULTILINE,
)


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
    for project in (ROOT, ROOT / "thin_client"):
        run(sys.executable, "-m", "build", "--outdir", folder, project, cwd=folder)
    run(sys.executable, "-m", "twine", "check", "--strict", *folder.iterdir(), cwd=folder)
    found = {}
    for kind, ending in (("wheel", "*.whl"), ("sdist", "*.tar.gz")):
        (found[kind],) = folder.glob(f"impala_rl-{ending}")
        (found[f"thin {kind}"],) = folder.glob(f"impala_rl_thin-{ending}")
    return found


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
    text = archive.read(name).decode()
    found = {**dict(_EXTRA_REQUIREMENT.findall(text)), **dict(_REQUIREMENT.findall(text))}
    assert "numpy" in found
    assert found.pop("torch", None) or "thin" in wheel.name
    return "".join(f"{name}=={version}\n" for name, version in found.items())


def install(folder: Path, built: dict[str, Path], kind: str, versions: str, extras: str) -> None:
    """Installs a file into an environment, with torch before it where it needs torch."""
    pip = [folder / "bin" / "pip", "--disable-pip-version-check", "--quiet", "install"]
    options: list[str] = []
    if versions == "lowest":
        lowest = folder / "lowest.txt"
        lowest.write_text(find_lowest(built["thin wheel" if "thin" in kind else "wheel"]))
        options = ["-c", str(lowest)]
    if "thin" not in kind:
        run(*pip, *options, *TORCH.split(), cwd=folder)
    run(*pip, *options, f"{built[kind]}{extras}", cwd=folder)


@pytest.mark.parametrize(
    ("kind", "versions"), [("wheel", "newest"), ("sdist", "newest"), ("wheel", "lowest")]
)
def test_clean_installation_trains(
    built: dict[str, Path], environment: Path, tmp_path: Path, kind: str, versions: str
) -> None:
    install(environment, built, kind, versions, extras="")

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


@pytest.fixture(scope="module")
def policy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a policy server of this environment, which plays CartPole with a run's weights."""
    folder, commands = tmp_path_factory.mktemp("server"), Path(sys.executable).parent
    more = ["--total-steps", "1000", "--eval-episodes", "0", "--quiet", "--run-dir", "run"]
    run(commands / "impala-train", "CartPole-v1", *more, cwd=folder)
    options = ["--policy", "run", "--port", "0", "--address-file", "address"]
    process = subprocess.Popen([commands / "impala-policy-server", *options], cwd=folder)
    try:
        deadline = time.monotonic() + 60.0
        while not (folder / "address").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield (folder / "address").read_text().strip()
    finally:
        process.terminate()
        assert process.wait(timeout=30.0) == 0


@pytest.mark.parametrize(
    ("kind", "versions"),
    [("thin wheel", "newest"), ("thin sdist", "newest"), ("thin wheel", "lowest")],
)
def test_clean_installation_of_the_thin_package_plays_and_judges(
    built: dict[str, Path],
    environment: Path,
    policy_server: str,
    tmp_path: Path,
    kind: str,
    versions: str,
) -> None:
    install(environment, built, kind, versions, extras="[gymnasium,conformance]")

    options = ["--server", policy_server, "--env", "CartPole-v1", "--slots", "4"]
    more = ["--episodes", "8", "--evaluation"]
    played = run(environment / "bin" / "impala-thin-actor", *options, *more, cwd=tmp_path)
    judge = [environment / "bin" / "impala-conformance", "--policy-server", policy_server]
    judged = json.loads(run(*judge, "--rules", "welcome,repetition", "--json", cwd=tmp_path))

    assert played.startswith("played ")
    assert [rule["outcome"] for rule in judged["rules"]] == ["passed", "passed"]
    packages = run(environment / "bin" / "pip", "freeze", cwd=tmp_path).lower()
    assert "torch" not in packages
    assert "impala-rl-thin" in packages
