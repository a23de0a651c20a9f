"""ResultConsole: rich's console for the tables that a command prints on stdout."""

from __future__ import annotations

from rich.console import Console


class ResultConsole(Console):
    """A console that leaves it to the command to end when its reader is gone."""

    def on_broken_pipe(self) -> None:
        """Called by rich, whose own way is to end the process with 1."""
        raise BrokenPipeError
