"""Logging of commands: one plain line per event on stderr.

`configure_logging` is called once, by a command's main. Whatever another
machine sent goes through `printable` before it is logged.
"""

from __future__ import annotations

import logging
import sys


def configure_logging(level: int | str, name: str) -> None:
    """Sends log records of this process to stderr as `HH:MM:SS level name message`.

    Args:
      level: lowest level shown, as `logging` has them.
      name: which part of the machine this process is: learner, actor-0...
    """
    handler = _CurrentStderrHandler()
    handler.setFormatter(_LineFormatter(name))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _CurrentStderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def printable(text: object, limit: int = 200) -> str:
    """Returns `text` fit for one line of a log: escaped, and cut after `limit` characters.

    Line ends, terminal codes and whatever else does not print become backslash
    escapes, so that no client can forge a line or paint the terminal.
    """
    whole = str(text)
    # Cut first: escaping must not cost more than the limit allows.
    shown = "".join(_escape(character) for character in whole[:limit])
    if len(shown) > limit or len(whole) > limit:
        return f"{shown[:limit]}... ({len(whole)} characters)"
    return shown


def _escape(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode("ascii")


class _LineFormatter(logging.Formatter):
    """`HH:MM:SS level name message`, with a traceback below where there is one."""

    def __init__(self, name: str) -> None:
        escaped = name.replace("%", "%%")
        super().__init__(f"%(asctime)s %(level)s {escaped} %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        record.level = record.levelname.lower()
        return super().formatMessage(record)


class _CurrentStderrHandler(logging.Handler):
    """Writes to whatever stderr is now: a live display puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # a full disk or closed pipe must not end training
            self.handleError(record)
