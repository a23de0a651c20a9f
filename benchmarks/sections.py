"""The sections of `make bench`, in the order in which they run. A new one is one line here."""

from __future__ import annotations

from benchmarks import parts, solve, startup, system
from benchmarks.section import Section

SECTIONS: dict[str, Section] = {
    "parts": parts,
    "system": system,  # after parts, for the bound
    "solve": solve,
    "startup": startup,
}
"""By name, as in performance.json, targets.toml and `--only`."""
