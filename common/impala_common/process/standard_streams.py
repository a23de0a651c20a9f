"""Makes stdout and stderr safe to write to: closed ones, full disks, and encodings without ±.

Called first in each command's `main`, before anything opens a file or starts a process.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from typing import TextIO

from impala_rl.standard_streams import (
    open_closed_descriptors,
    reader_may_leave,
    tell_interrupts_in_a_line,
)

__all__ = ["prepare_standard_streams", "reader_may_leave"]

_HANDLER = "impala-plain"
_PLAIN = {
    "±": "+-",
    "…": "...",
    "\u2013": "-",
    "\u2014": "-",
    "→": "->",
    "█": "#",
    "░": ".",
    "≥": ">=",
}
_PLAIN |= dict(zip("▁▂▃▄▅▆▇", "__--==#", strict=True))


def prepare_standard_streams() -> None:
    """Opens closed streams as /dev/null, and replaces characters that cannot be encoded.

    Writing to stderr never raises afterwards: a message may be lost, but
    the command goes on.
    """
    tell_interrupts_in_a_line()
    open_closed_descriptors()
    if sys.stdin is None:
        sys.stdin = open(0)  # noqa: SIM115 (open for as long as the process lives)
    sys.stdout = _make_safe(sys.stdout, 1, io.TextIOWrapper)
    sys.stderr = _make_safe(sys.stderr, 2, _UnfailingText)


class _UnfailingText(io.TextIOWrapper):
    """A text stream that drops text if writing fails (no reader, full disk)."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _make_safe(
    stream: TextIO | None, descriptor: int, kind: type[io.TextIOWrapper]
) -> io.TextIOWrapper:
    """Returns a stream on the same buffer and with the same encoding."""
    is_line_buffered = True
    if isinstance(stream, io.TextIOWrapper):
        encoding, is_line_buffered = stream.encoding, stream.line_buffering
        buffer = stream.detach()
    else:
        encoding = "utf-8"
        buffer = open(descriptor, "wb", closefd=False)  # noqa: SIM115 (as long as the process)
    codecs.register_error(_HANDLER, _replace)
    return kind(
        buffer,
        encoding=encoding,
        errors=_HANDLER,
        line_buffering=is_line_buffered or descriptor == 2,
    )


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: returns similar ASCII characters, or "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end
