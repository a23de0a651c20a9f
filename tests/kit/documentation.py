"""Blocks of code in README.md and docs/, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
RUN_LANGUAGES = ("sh", "console", "python")

_BLOCK = re.compile(
    r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_PAGE_MARK = re.compile(r"^<!-- no block of this page is run: (.+) -->$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block.

    Attributes:
      page: file it stands in.
      line: number of its first line.
      language: word behind the fence.
      text: what it holds.
      reason: why it is not run; empty: it is.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str


def find_blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of commands and of Python of one page, in order."""
    source = page.read_text(encoding="utf-8")
    mark = _PAGE_MARK.search(source)
    return [
        Block(
            page,
            source.count("\n", 0, match.start(3)) + 1,
            match[2],
            match[3],
            match[1] or (mark[1] if mark else ""),
        )
        for match in _BLOCK.finditer(source)
        if match[2] in RUN_LANGUAGES
    ]
