"""Installed version of this package, installed optional packages, and commands to install them.

Reads package metadata only and imports no package. Used by the commands and by the text of
MissingExtraError.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Sequence

DISTRIBUTION = "impala-rl"
_UNKNOWN_VERSION = "0+unknown"
_EXTRA_MARKER = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


def find_version() -> str:
    """Returns the version of impala-rl; "0+unknown" for sources that are not installed."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN_VERSION


def show_version(program: str, argv: Sequence[str]) -> None:
    """Prints the version and exits with 0 if --version is among the arguments."""
    if "--version" in argv:
        sys.stdout.write(f"{program} {find_version()}\n")
        raise SystemExit(0)


def is_installed(module: str) -> bool:
    """Returns whether a top-level module or package exists, without importing it."""
    return importlib.util.find_spec(module) is not None


def way_to_install(extra: str) -> str:
    """Returns the command that installs the packages of an extra of impala-rl.

    It names the packages themselves, so that it works for a checkout as well as for a release: an
    extra can only be installed from the same source as impala-rl.
    """
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    found = []
    for requirement in requirements:
        name, _, marker = requirement.partition(";")
        match = _EXTRA_MARKER.search(marker)
        if match is not None and match.group(1) == extra:
            found.append(f"'{name.strip()}'")
    return "pip install " + " ".join(found or [f"'{DISTRIBUTION}[{extra}]'"])
