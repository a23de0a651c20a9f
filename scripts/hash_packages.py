"""Makes deploy/images/hashes.txt: every wheel for Linux of every package that images install.

    python scripts/hash_packages.py            asks the index, writes the file
    python scripts/hash_packages.py --check    fails if the file is not what the index says

pip resolves what the images ask for, in the versions of constraints.txt, without installing
anything; the index (PyPI, or INDEX) then tells the SHA-256 of each file of these versions, so that
wheels for other Python versions and for aarch64 are among them. The CPU builds of torch are on
an index of their own; their hashes stand below. tests/unit/repository/test_image_hashes.py checks
without a network that nothing is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from generated_page import write_or_check
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "deploy" / "images"
INDEX = os.environ.get("INDEX", "https://pypi.org/simple").rstrip("/")
TIMEOUT_S = 60.0
RESOLVE_S = 600.0

EXTRAS = "atari,minatar,minigrid,mujoco,tensorboard,video"
"""Extras whose packages can be installed with hashes: what EXTRAS of an image may name."""
MORE = ("hatchling", "tensorboard", "setuptools")
"""What images install besides the dependencies of impala-rl."""
TORCH_CPU = (
    # cp311, manylinux_2_28: x86_64, aarch64
    "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",
)
"""Wheels of torch 2.13.0+cpu on download.pytorch.org, as several projects publish their hashes."""
HEADER = f"""\
# SHA-256 of the wheels for Linux of every package that the images install, any Python and any
# processor. Made by scripts/hash_packages.py; read by deploy/images/install.py.
# Extras that are covered: {EXTRAS}
"""


def pinned(text: str) -> dict[str, str]:
    """Returns the version of each package of a constraints file, by canonical name."""
    lines = [line.split("==") for line in text.splitlines() if "==" in line and line[0] != "#"]
    return {canonicalize_name(name): version for name, version in lines}


def resolve(wanted: list[str], *options: str) -> dict[str, str]:
    """Returns the versions pip would install, by canonical name, from INDEX alone."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": INDEX}
        if "PIP_CERT" in os.environ:
            environment["PIP_CERT"] = os.environ["PIP_CERT"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        command += ["-c", str(ROOT / "constraints.txt"), *options, *wanted]
        subprocess.run(command, check=True, timeout=RESOLVE_S, env=environment)
        installed = json.loads(report.read_text())["install"]
    packages = [item["metadata"] for item in installed]
    return {canonicalize_name(package["name"]): package["version"] for package in packages}


def wheel_hashes(name: str, version: str) -> list[str]:
    """Returns the SHA-256 of each wheel for Linux that INDEX has of a version."""
    request = urllib.request.Request(
        f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        files = json.load(answer)["files"]
    found = set()
    for file in files:
        if not file["filename"].endswith(".whl") or file.get("yanked"):
            continue
        _, of_version, _, tags = parse_wheel_filename(file["filename"])
        if str(of_version) == version and any(
            tag.platform == "any" or "linux" in tag.platform for tag in tags
        ):
            found.add(file["hashes"]["sha256"])
    if not found:
        raise LookupError(f"{INDEX} has no wheel for Linux of {name} {version}")
    return sorted(found)


def list_requirements(kind: str) -> list[str]:
    """Returns what an image with EXTRAS installs, by the script that images run."""
    command = [sys.executable, str(IMAGES / "requirements.py"), kind, EXTRAS]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines()


def entry(name: str, version: str, hashes: list[str]) -> str:
    """Returns the lines of one package, as pip reads them."""
    return " \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{it}" for it in hashes)])


def build() -> str:
    """Returns the text of hashes.txt."""
    versions = resolve([*list_requirements("full"), *MORE])
    versions |= resolve(list_requirements("bare"), "--no-deps")
    lines = [entry(name, versions[name], wheel_hashes(name, versions[name])) for name in versions]
    torch = pinned((ROOT / "constraints.txt").read_text())["torch"]
    lines.append(entry("torch", f"{torch}+cpu", sorted(TORCH_CPU)))
    return HEADER + "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(IMAGES / "hashes.txt", build(), "make hashes"))
