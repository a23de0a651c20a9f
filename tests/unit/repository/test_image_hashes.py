"""deploy/images: packages of images come by their hashes, and hashes.txt lacks none.

No network is used: what depends on what is read from the packages installed here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
IMAGES = ROOT / "deploy" / "images"
DOCKERFILES = sorted(
    path for path in ROOT.rglob("Dockerfile") if path.relative_to(ROOT).parts[0][0] != "."
)
RUN_S = 30.0


def load(name: str) -> types.ModuleType:
    """Returns a script of deploy/images as a module."""
    spec = importlib.util.spec_from_file_location(name, IMAGES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install, listing = load("install"), load("requirements")
ENTRIES: dict[tuple[str, str], str] = install.read_hashes((IMAGES / "hashes.txt").read_text())
NAMES = {name for name, _ in ENTRIES}


def pins() -> dict[str, str]:
    """Returns the versions of constraints.txt by canonical name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {str(canonicalize_name(name)): version for name, version in pairs}


def closure(wanted: list[str], *, is_bare: bool = False) -> set[str]:
    """Returns the names of what requirements need, as far as the packages are installed here."""
    found: set[str] = set()
    left = [(Requirement(line), "") for line in wanted]
    while left:
        requirement, extra = left.pop()
        marker = requirement.marker
        if marker is not None and not marker.evaluate({**default_environment(), "extra": extra}):
            continue
        name = str(canonicalize_name(requirement.name))
        is_new = name not in found
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for more in ["", *requirement.extras]:
            if not is_bare and (is_new or more):
                left += [(Requirement(line), more) for line in needs]
    return found


def test_every_package_of_the_images_has_hashes() -> None:
    """Seen to fail with the entry of pycparser, which cffi needs, taken out."""
    pyproject = str(ROOT / "pyproject.toml")
    thin = str(ROOT / "thin_client" / "pyproject.toml")
    extras = re.search(r"covered: (\S+)", (IMAGES / "hashes.txt").read_text())
    assert extras is not None
    full = listing.requirements(pyproject, "full", extras[1])
    needed = closure([*full, *listing.requirements(thin, "full", "gymnasium")])
    needed |= closure(["hatchling", "tensorboard", "setuptools"])
    needed |= closure(listing.requirements(pyproject, "bare", extras[1]), is_bare=True)

    assert len(needed) > 30
    assert sorted(needed - NAMES) == []


def test_every_entry_has_hashes_and_the_version_of_constraints() -> None:
    """Before: packages of images came without hashes."""
    pinned = pins()

    for (name, version), line in ENTRIES.items():
        assert re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line), name
        if name in pinned:
            assert version.removesuffix("+cpu") == pinned[name], name


@pytest.mark.parametrize("name", ["numpy", "grpcio", "safetensors", "xxhash", "torch"])
def test_packages_with_machine_code_have_a_hash_for_each_processor(name: str) -> None:
    for (found, version), line in ENTRIES.items():
        if found == name:
            assert line.count("--hash=") >= 2, version


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_no_image_installs_past_the_hashes(path: Path) -> None:
    """Only files of this repository are installed by pip directly. Seen to fail before hashes."""
    text = path.read_text()
    commands = re.findall(r"pip install ([^\n&]*)", re.sub(r"\\\n", " ", text))

    assert "ARG HASHES=require" in text
    assert "install.py" in text
    for command in commands:
        assert "--no-deps" in command, command
        assert command.split()[-1] == "/dist/*.whl", command
    for command in re.findall(r"pip wheel ([^\n&]*)", re.sub(r"\\\n", " ", text)):
        assert "--no-build-isolation" in command, command


def test_what_pip_would_install_is_chosen_by_name_and_version() -> None:
    entries = install.read_hashes(
        "# text\na-b==1.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"
    )
    report = {"install": [{"metadata": {"name": "A_b", "version": "1.0"}}]}

    assert install.choose(json.dumps(report), entries) == [
        "a-b==1.0 --hash=sha256:00 --hash=sha256:11"
    ]
    report["install"][0]["metadata"]["version"] = "1.1"
    with pytest.raises(LookupError, match=r"a-b==1\.1"):
        install.choose(json.dumps(report), entries)


def test_mode_of_another_name_is_refused() -> None:
    """Written to find a mistyped HASHES taken for none."""
    done = subprocess.run(
        [sys.executable, IMAGES / "install.py", "numpy"],
        env={"HASHES": "off"},
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )

    assert done.returncode == 78
    assert done.stderr == "error: HASHES is one of require, none; got 'off'\n"
