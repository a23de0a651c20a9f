"""A release is what pyproject.toml and CHANGELOG.md say, and CI finds its notes.

"Planted" names a fault that was put into a copy of the file to see the test fail.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
VERSION: str = PROJECT["version"]


def read_notes(changelog: Path, version: str) -> str:
    """Returns what the release job of CI takes for the notes of a version."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    steps = [step.get("run", "") for step in jobs["release"]["steps"]]
    (command,) = (step for step in steps if "CHANGELOG.md" in step)
    script = command.split(" > ")[0].replace("CHANGELOG.md", str(changelog))
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": f"v{version}"},
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return done.stdout


def test_version_has_a_dated_section_that_becomes_its_notes() -> None:
    """Planted: the section without its version."""
    notes = read_notes(ROOT / "CHANGELOG.md", VERSION)

    assert re.match(rf"## \[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d\n", notes)
    assert "### Added" in notes
    assert notes.count("\n## ") == 0


def test_notes_end_where_the_version_before_begins(tmp_path: Path) -> None:
    """Planted in ci.yml: `on = 1` in place of `on = index(...)`."""
    changelog = tmp_path / "CHANGELOG.md"
    sections = [
        f"## [{version}] - 2026-01-01\n\n- of {version}\n\n" for version in ("0.2.0", "0.1.0")
    ]
    changelog.write_text("# Changelog\n\n## [Unreleased]\n\n- not yet\n\n" + "".join(sections))

    for version in ("0.2.0", "0.1.0"):
        expected = f"## [{version}] - 2026-01-01\n\n- of {version}\n"
        assert read_notes(changelog, version).strip() == expected.strip()
    assert read_notes(changelog, "0.3.0") == ""


@pytest.mark.parametrize("path", ["thin_client/pyproject.toml", "CITATION.cff"])
def test_version_is_written_in_one_place(path: str) -> None:
    """Planted: `version = "0.1.0"` in thin_client/pyproject.toml."""
    assert not re.search(r"^version\b.*\d", (ROOT / path).read_text("utf-8"), re.MULTILINE)


def test_classifiers_name_the_pythons_that_ci_tests() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    named = [text.rpartition(" :: ")[2] for text in PROJECT["classifiers"] if ":: 3." in text]

    assert jobs["test"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
