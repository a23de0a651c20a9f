"""The wheel holds all packages and works without the checkout."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "impala_rl",
    "impala_thin",
    "impala_conformance",
    "impala_common",
    "impala_server",
    "impala_actor",
    "impala_policy_server",
    "impala_agent",
)
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Returns what a command printed; it must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("pip", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    path = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(path))
    run(*PIP, "wheel", str(ROOT), *options, cwd=path)
    (built,) = path.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the wheel's content, which PYTHONPATH puts before the checkout."""
    target = tmp_path_factory.mktemp("installed")
    run(*PIP, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=target)
    return target


def test_wheel_holds_the_packages_their_types_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or "test_" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_thin_wheel_holds_clients_and_generated_code_of_the_same_version(
    wheel: Path, tmp_path: Path
) -> None:
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path))
    run(*PIP, "wheel", str(ROOT / "thin_client"), *options, cwd=tmp_path)
    (built,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(built).namelist()

    tops = {name.partition("/")[0] for name in names}
    packages = {"impala_rl", "impala_thin", "impala_conformance"}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    assert "impala_rl/v1/policy_pb2_grpc.py" in names
    assert built.name.split("-")[1] == wheel.name.split("-")[1]
    everything = zipfile.ZipFile(wheel)
    for name in names:
        if not name.partition("/")[0].endswith(".dist-info"):
            assert zipfile.ZipFile(built).read(name) == everything.read(name), name


def test_installed_wheel_imports_every_module_outside_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    code = f"""
        import importlib, pkgutil, sys
        optional = ("impala_actor.environments.envpool",)
        for package in {PACKAGES}:
            path = importlib.import_module(package).__path__
            for module in pkgutil.walk_packages(path, package + "."):
                if not module.name.endswith("__main__") and module.name not in optional:
                    importlib.import_module(module.name)
        for name, module in sorted(sys.modules.items()):
            if name.partition(".")[0] in {PACKAGES}:
                print(module.__file__)
    """

    printed = run(
        sys.executable, "-c", textwrap.dedent(code), cwd=tmp_path, PYTHONPATH=str(installed)
    )

    files = printed.split()
    assert len(files) > 60
    assert [file for file in files if not file.startswith(str(installed))] == []


@pytest.mark.parametrize(
    "name",
    [
        "impala-train",
        "impala-server",
        "impala-actor",
        "impala-eval",
        "impala-report",
        "impala-runs",
        "impala-health",
    ],
)
def test_installed_command_shows_its_help(installed: Path, tmp_path: Path, name: str) -> None:
    command = str(installed / "bin" / name)

    printed = run(sys.executable, command, "--help", cwd=tmp_path, PYTHONPATH=str(installed))

    assert f"usage: {name}" in printed
