"""The sections of `make bench`, in the order in which they run. A new one is one line here."""

from __future__ import annotations

from benchmarks.sections import (
    growth,
    inference,
    parts,
    solve,
    startup,
    system,
    thin,
    update,
    wire,
)
from benchmarks.suite.section import Section

SECTIONS: dict[str, Section] = {
    "parts": parts,
    "system": system,  # after parts, for the bound
    "inference": inference,
    "solve": solve,
    "startup": startup,
    "update": update,
    "wire": wire,
    "growth": growth,
    "thin": thin,
}
"""By name, as in performance.json, targets.toml and `--only`."""
