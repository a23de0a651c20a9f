"""The fault table names existing tests, and docs/faults.md is generated from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from generate_fault_table import Row, read_rows, render  # noqa: E402

TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)
}


@pytest.mark.parametrize("row", read_rows(), ids=lambda row: f"row-{row.number}")
def test_row_names_tests_that_exist(row: Row) -> None:
    assert row.tests, "a row that nothing covers is a wish"
    assert [name for name in row.tests if name not in TESTS] == []
    assert row.expected
    assert row.measured


def test_page_has_every_row_and_is_up_to_date() -> None:
    page = render()

    assert all(f"\n| {row.number} | " in page for row in read_rows())
    script = ROOT / "scripts" / "generate_fault_table.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False)
    assert done.returncode == 0, "run make docs"
