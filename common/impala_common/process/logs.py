"""Logging of commands on stderr: plain lines for people, JSON lines for machines.

`configure_logging` is called once, by a command's main. Text from other machines goes through
`printable` before it is logged; as JSON every record is one line of ASCII with a limited length.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import threading
from types import TracebackType
from typing import Literal

from impala_common.process.log_limit import LogLimit

LogFormat = Literal["auto", "text", "json"]
"""auto: text on a terminal, JSON elsewhere."""

_MAX_MESSAGE = 4_000
_MAX_TRACEBACK = 16_000


def configure_logging(level: int | str, name: str, log_format: LogFormat = "text") -> None:
    """Sends log records of this process to stderr.

    As text: `HH:MM:SS level name message`. As JSON: an object with ts (RFC 3339, UTC), level,
    component, logger, message and, where there is one, traceback.

    Args:
      level: lowest level shown, as `logging` has them.
      name: name of this process: learner, actor-0...
      log_format: text, json or auto.
    """
    is_json = resolve_log_format(log_format) == "json"
    handler = _CurrentStderrHandler()
    handler.setFormatter(_JsonFormatter(name) if is_json else _LineFormatter(name))
    handler.addFilter(LogLimit())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _CurrentStderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    if is_json:
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_of_thread


def resolve_log_format(log_format: LogFormat) -> Literal["text", "json"]:
    """Returns the format that "auto" means for the stderr of this process."""
    if log_format == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return log_format


def write_line(level: str, text: str) -> None:
    """Writes a command's message to the user, at any log level.

    In the form `configure_logging` was called with; as plain text the line is `text` alone.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _CurrentStderrHandler) and isinstance(
            handler.formatter, _JsonFormatter
        ):
            number = logging.getLevelNamesMapping()[level.upper()]
            record = logging.LogRecord("impala", number, "", 0, "%s", (text,), None)
            handler.emit(record)
            return
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def printable(text: object, limit: int = 200) -> str:
    """Returns `text` fit for one line of a log: escaped, and cut after `limit` characters.

    Line ends, terminal codes and other unprintable characters become backslash escapes, so that
    clients cannot forge a line or control the terminal.
    """
    whole = str(text)
    # Cut first, to limit the cost of escaping.
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


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII only."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        try:
            message = record.getMessage()
        except Exception as error:  # log the line even if its format string is wrong
            message = f"{record.msg} ({error})"
        line = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "component": self._name,
            "logger": record.name,
            "message": _cap(message, _MAX_MESSAGE),
        }
        if record.exc_info:
            line["traceback"] = _cap(self.formatException(record.exc_info), _MAX_TRACEBACK)
        return json.dumps(line)


def _cap(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        logging.getLogger("impala").warning("interrupted")
        return
    logging.getLogger("impala").critical("uncaught: %s", error, exc_info=(kind, error, trace))


def _log_uncaught_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _log_uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


class _CurrentStderrHandler(logging.Handler):
    """Writes to the present sys.stderr, which a live display may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # a full disk or closed pipe must not end training
            self.handleError(record)
