"""A page that is made by a script: written, or (--check) compared with what it would be."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(page: Path, text: str, remedy: str = "make docs") -> int:
    """Writes `text` to `page`, or only compares them where the script got --check.

    Returns:
      the exit code: 1 where the page is out of date.
    """
    if "--check" not in sys.argv[1:]:
        page.write_text(text)
        print(f"wrote {page.name}")
        return 0
    if page.exists() and page.read_text() == text:
        return 0
    print(f"{page.name} is out of date: run {remedy}")
    return 1
