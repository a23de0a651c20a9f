"""The sections of `make bench`, in the order in which they run. A new one is one line here."""

from __future__ import annotations

from benchmarks.section import Section

SECTIONS: dict[str, Section] = {}
"""By name, as in performance.json, targets.toml and `--only`."""
