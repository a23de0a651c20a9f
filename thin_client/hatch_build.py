"""What impala-rl-thin shares with impala-rl: generated code, version and licence.

hatchling calls this where the distribution is built. In the repository they stand one folder up; an
sdist holds a copy, from which its wheel is built.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_SHARED = {"protos/impala_rl": "impala_rl", "LICENSE": "LICENSE", "pyproject.toml": "version.toml"}


def _find_shared(root: str, name: str) -> Path:
    copy, above = Path(root) / _SHARED[name], Path(root).parent / name
    return copy if copy.exists() else above


class SharedFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the shared files into wheel and sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before files are collected."""
        wanted = _SHARED if self.target_name == "sdist" else {"protos/impala_rl": "impala_rl"}
        for name, place in wanted.items():
            build_data["force_include"][str(_find_shared(self.root, name))] = place


class SharedVersion(MetadataHookInterface):
    """Takes the version of impala-rl."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called with the table [project]."""
        text = _find_shared(self.root, "pyproject.toml").read_text()
        metadata["version"] = tomllib.loads(text)["project"]["version"]
