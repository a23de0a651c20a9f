"""Installs packages into an image, each file by its hash; run by the Dockerfiles.

    python install.py [--no-deps] [OPTION OF AN INDEX...] [-r FILE] REQUIREMENT...

First pip is asked, without installing anything, which versions it would take. Their lines of
hashes.txt then go to `pip install --require-hashes --no-deps`: what the index sends is installed
only if its SHA-256 stands in this repository. Wheels only, since building a source archive
would fetch build tools that nothing checks.

The environment variable HASHES, a build argument of each Dockerfile, is `require` or `none`:
with `none` pip installs what the index sends, in the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HASHES = Path("hashes.txt")
CONSTRAINTS = Path("/opt/constraints.txt")
MODES = ("require", "none")
REFUSED = 78
INDEX_OPTIONS = ("--index-url", "--extra-index-url", "--find-links", "--trusted-host")


def canonical(name: str) -> str:
    """Returns the one spelling of a package's name that indexes use."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_hashes(text: str) -> dict[tuple[str, str], str]:
    """Returns the entry of each package and version: a requirement and its hashes, on one line."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    entries = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, version = line.split()[0].split("==")
            entries[canonical(name), version] = " ".join(line.split())
    return entries


def choose(report: str, entries: dict[tuple[str, str], str]) -> list[str]:
    """Returns the entries of what a report of `pip install --report` would install.

    Raises:
      LookupError: something is to be installed of which there is no hash; names all such.
    """
    packages = [item["metadata"] for item in json.loads(report)["install"]]
    keys = [(canonical(package["name"]), package["version"]) for package in packages]
    missing = sorted("==".join(key) for key in keys if key not in entries)
    if missing:
        raise LookupError(", ".join(missing))
    return [entries[key] for key in keys]


def main(words: list[str]) -> None:
    """Installs; a package without a hash ends the build, and so does a file with another one."""
    mode = os.environ.get("HASHES", MODES[0])
    if mode not in MODES:
        _refuse(f"HASHES is one of {', '.join(MODES)}; got {mode!r}")
    if mode == "none":
        print("HASHES=none: what the index sends is installed unchecked", flush=True)
        _run_pip("install", "-c", str(CONSTRAINTS), *words)
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--no-deps", action="store_true")
    parser.add_argument("-r", "--requirement", metavar="FILE")
    for name in INDEX_OPTIONS:
        parser.add_argument(name, action="append", default=[])
    parser.add_argument("requirements", nargs="*")
    given = vars(parser.parse_intermixed_args(words))
    index = [
        word
        for name in INDEX_OPTIONS
        for value in given[name.strip("-").replace("-", "_")]
        for word in (name, value)
    ]
    with tempfile.TemporaryDirectory() as folder:
        _install_checked(index, words, Path(folder))


def _install_checked(index: list[str], words: list[str], folder: Path) -> None:
    entries = read_hashes(HASHES.read_text())
    pins = folder / "pins.txt"
    # torch is the one package with entries of two builds; TORCH says which.
    pins.write_text("".join(f"{n}=={v}\n" for n, v in entries if n != "torch"))
    report = folder / "report.json"
    wheels = ["--only-binary", ":all:"]
    dry_run = ["install", "--quiet", "--dry-run", "--report", str(report), *wheels]
    constraints = ["-c", str(pins), "-c", str(CONSTRAINTS)]
    _run_pip(*dry_run, *constraints, *words)
    try:
        chosen = choose(report.read_text(), entries)
    except LookupError as error:
        _refuse(
            f"deploy/images/hashes.txt has no hash of {error}. Add it with "
            "scripts/hash_packages.py, or trust the index: --build-arg HASHES=none"
        )
    if not chosen:
        return
    locked = folder / "locked.txt"
    locked.write_text("\n".join(chosen) + "\n")
    checked = ["install", "--require-hashes", "--no-deps", *wheels, *index, "-r", str(locked)]
    _run_pip(*checked)


def _run_pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)  # noqa: S603 (pip itself)


def _refuse(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(REFUSED)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
