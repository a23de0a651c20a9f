"""Figures of single fault tests for the table in docs/faults.md, and the size of each test.

`record(row, ...)` merges them into the JSON file that the environment variable IMPALA_FAULT_FIGURES
names (docs/results/hostile.json in `make faults`), by row and test, and does nothing without it.
`amount` says how much a test tries: all where IMPALA_FAULTS is "full" (`make faults`), else a
little, for `make test`.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
from benchmarks.suite.machine import describe_machine

FILE_VARIABLE = "IMPALA_FAULT_FIGURES"
FULL_VARIABLE = "IMPALA_FAULTS"

IS_FULL = os.environ.get(FULL_VARIABLE) == "full"
full_only = pytest.mark.skipif(not IS_FULL, reason="long: only in `make faults`")
"""Marks a test that only `make faults` runs."""


def amount(small: int, full: int) -> int:
    """Returns how many of a fault to try."""
    return full if IS_FULL else small


def record(row: int, **figures: float | int | str) -> None:
    """Writes down what the test that runs measured for a row of the fault table."""
    name = os.environ.get(FILE_VARIABLE)
    if not name:
        return
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition("::")[2].removesuffix(" (call)")
    rounded = {
        name: round(value, 2) if isinstance(value, float) else value
        for name, value in figures.items()
    }
    with Path(name).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two runs of pytest may write
        file.seek(0)
        known = json.loads(file.read() or "{}").get("rows", {})
        known.setdefault(str(row), {}).setdefault(test, {}).update(rounded)
        in_order = {key: known[key] for key in sorted(known, key=int)}
        contents = {"machine": describe_machine(), "rows": in_order}
        file.truncate(0)
        file.write(json.dumps(contents, indent=1) + "\n")
