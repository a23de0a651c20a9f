"""docs/tried.md names tests that there are, at least one in each row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_row_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "tried.md").read_text(encoding="utf-8")
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    rows = re.findall(r"^\| (\d+) \|.*$", page, re.MULTILINE)
    named = [
        re.findall(r"`(test_\w+)`", line)
        for line in page.splitlines()
        if re.match(r"\| \d+ \|", line)
    ]

    assert rows == [str(number) for number in range(1, 30)]
    assert all(named)
    assert sorted({name for row in named for name in row} - known) == []
