"""What a terminal can show, judged by the stream itself and not only by what rich was told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def is_on_terminal(stream: Any) -> bool:  # Any: None, or whatever a notebook has put there
    """Whether what is written to `stream` goes to a terminal."""
    return stream is not None and bool(stream.isatty())


def can_show_live(console: Console) -> bool:
    """Whether a display on `console` can be drawn anew in its place.

    FORCE_COLOR makes a file a terminal to rich, and one that knows no cursor (TERM=dumb) is one,
    too: both need plain lines.
    """
    is_terminal = console.is_terminal and is_on_terminal(console.file)
    return is_terminal and not console.is_dumb_terminal


def keeps_prints_apart() -> bool:
    """Whether a live display on stderr must leave alone what is printed to stdout meanwhile.

    It would send that to stderr, to show it above itself: right where both are the terminal,
    wrong where stdout goes to a file or a pipe.
    """
    return not is_on_terminal(sys.stdout)
