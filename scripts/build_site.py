"""Builds the documentation site, without warnings: `make site`, `make site ARGS=serve`.

Copies README.md, the pages of docs/ and every file that they link to into .site/source, at the
same paths, and runs mkdocs there (extra `docs`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / ".site" / "source"
_ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
_LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def stage() -> None:
    """Copies the pages and what they link to; links to folders lead to a list of their files."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    pages = [ROOT / name for name in _ROOT_PAGES] + sorted((ROOT / "docs").rglob("*.md"))
    pages = [page for page in pages if page.exists()]
    for page in pages:
        text = page.read_text(encoding="utf-8")

        def lead(match: re.Match[str], page: Path = page) -> str:
            return _follow(page, match[1], match[2] or "")

        target = SOURCE / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_LINK.sub(lead, text), encoding="utf-8")


def _follow(page: Path, link: str, anchor: str) -> str:
    """Copies what a link leads to, and returns the link as it is on the site."""
    target = Path(os.path.normpath(page.parent / link))
    if target.is_dir():
        listing = target / "index.md"
        inside = [item for item in sorted(target.glob("*.md")) if "template" not in item.name]
        lines = [f"- [{_title(item)}]({item.name})" for item in inside]
        copy = SOURCE / listing.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(f"# {target.name}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
        return f"]({link.rstrip('/')}/index.md)"
    if target.is_file() and target.suffix != ".md":
        copy = SOURCE / target.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, copy)
    return f"]({link}{anchor})"


def _title(page: Path) -> str:
    """Returns the first heading of a page."""
    first = page.read_text(encoding="utf-8").lstrip().splitlines()[0]
    return first.lstrip("# ").strip()


def main(command: str = "build") -> int:
    """Runs mkdocs; returns its exit code."""
    stage()
    options = ["--strict"] if command == "build" else []
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", command, *options], cwd=ROOT, env=environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
