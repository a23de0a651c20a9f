"""Figures of fault tests, as JSON lines for the table in docs/faults.md.

`record(row, ...)` appends a line to the file that the environment variable IMPALA_FAULT_FIGURES
names, and does nothing without it. `amount` says how much of a fault a test tries: a little in
`make test`, all of it where IMPALA_FAULTS is "full" (`make faults`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

FILE_VARIABLE = "IMPALA_FAULT_FIGURES"
FULL_VARIABLE = "IMPALA_FAULTS"

IS_FULL = os.environ.get(FULL_VARIABLE) == "full"
full_only = pytest.mark.skipif(not IS_FULL, reason="long: only in `make faults`")
"""Marks a test that only `make faults` runs."""


def amount(small: int, full: int) -> int:
    """Returns how many of a fault to try."""
    return full if IS_FULL else small


def record(row: int, **figures: float | int | str) -> None:
    """Writes down what was measured for a row of the fault table."""
    path = os.environ.get(FILE_VARIABLE)
    if not path:
        return
    rounded = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in figures.items()
    }
    with Path(path).open("a") as file:
        file.write(json.dumps({"row": row, **rounded}) + "\n")
