"""Results as a table for people, or as JSON."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from impala_conformance.rule import Result

_COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


class _ResultConsole(Console):
    def on_broken_pipe(self) -> None:
        """Called by rich, whose own way is to end the process with 1: a broken rule."""
        raise BrokenPipeError


def print_table(results: Sequence[Result], title: str, console: Console | None = None) -> None:
    """Prints one row for each rule, and the sums."""
    table = Table(title=title, title_justify="left", expand=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("the contract, and what was found")
    for result in results:
        text = Text(result.contract)
        if result.text:
            text.append(f"\n{result.text}", _COLOURS[result.outcome])
        table.add_row(result.rule, Text(result.outcome, _COLOURS[result.outcome]), text)
    console = console or _ResultConsole()
    console.print(table)
    console.print(describe_sums(results), highlight=False)


def to_json(results: Sequence[Result], address: str, side: str) -> str:
    """Returns everything as one JSON object."""
    counts = collections.Counter(result.outcome for result in results)
    return json.dumps(
        {
            "side": side,
            "address": address,
            "passed": counts["passed"],
            "failed": counts["failed"],
            "skipped": counts["skipped"],
            "rules": [dataclasses.asdict(result) for result in results],
        },
        indent=2,
    )


def describe_sums(results: Sequence[Result]) -> str:
    """Returns how many rules passed, failed and were skipped."""
    counts = collections.Counter(result.outcome for result in results)
    return f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
