"""Log records as JSON: always one line each; as text: no forged lines."""

from __future__ import annotations

import datetime
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from impala_common.process.logs import configure_logging, printable, resolve_log_format, write_line

HOSTILE = (
    "a\nb",
    'quote " and \\ backslash',
    "\x1b[31mred\x1b[0m\x07",
    "\x00\x01\x7f\x85",
    "\u2028\u2029\u202e\ufeff",
    "\ud800 half a pair",
    '"}\n{"ts": "2001-01-01T00:00:00Z", "level": "info", "message": "forged"}',
    "%s %d %(x)s {}",
    "x" * (1 << 20),
    "é ü 漢 🎉",
)


@pytest.fixture
def json_logs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[logging.Logger]:
    """Logs of this process as JSON; everything is put back."""
    import threading

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    configure_logging("INFO", "learner", "json")
    yield logging.getLogger("impala_server.somewhere")
    logging.captureWarnings(False)
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
    root.setLevel(level)


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    text = capsys.readouterr().err
    assert text.isascii()
    assert text.isprintable() or set(text) - {"\n"} <= {chr(c) for c in range(32, 127)}
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("text", HOSTILE)
def test_each_record_is_one_line_of_json(
    text: str, json_logs: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen to fail (two lines, the second forged) with the text formatter."""
    json_logs.warning("from a client: %s", text)
    json_logs.warning("escaped: %s", printable(text))
    json_logs.warning(text)
    write_line("info", text)

    raw, escaped, alone, said = lines_of(capsys)
    assert raw["message"].startswith("from a client: ")
    assert all(len(line["message"]) < 4100 for line in (raw, escaped, alone, said))
    assert len(escaped["message"]) < 300
    assert escaped["message"].isprintable()
    assert (raw["level"], said["level"]) == ("warning", "info")
    assert alone["message"][:10] == text[:10]


def test_record_says_when_how_bad_who_and_what(
    json_logs: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    json_logs.info("hello %d", 3)

    (line,) = lines_of(capsys)
    moment = datetime.datetime.fromisoformat(line.pop("ts"))
    assert moment.tzinfo == datetime.UTC
    assert abs((datetime.datetime.now(datetime.UTC) - moment).total_seconds()) < 60
    assert line == {
        "level": "info",
        "component": "learner",
        "logger": "impala_server.somewhere",
        "message": "hello 3",
    }


def test_traceback_is_in_the_same_line(
    json_logs: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        json_logs.exception("it failed")

    (line,) = lines_of(capsys)
    assert line["message"] == "it failed"
    assert "ValueError: broken" in line["traceback"]


def test_wrong_format_string_costs_no_line(
    json_logs: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "%d", ("x",), None)
    for handler in logging.getLogger().handlers:
        if type(handler).__module__ == "impala_common.process.logs":  # pytest's own would raise
            handler.handle(record)

    (line,) = lines_of(capsys)
    assert line["message"].startswith("%d (")


def test_uncaught_errors_and_warnings_of_a_process_are_lines_too() -> None:
    """Seen to fail without the hooks."""
    code = """
        import threading, warnings
        from impala_common.process.logs import configure_logging
        configure_logging("INFO", "actor", "auto")
        warnings.warn("careful\\nnow")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        raise RuntimeError("the end\\nof it")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
    )

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "critical", "critical"]
    assert "careful" in lines[0]["message"]
    assert "ZeroDivisionError" in lines[1]["traceback"]
    assert lines[2]["message"] == "uncaught: the end\nof it"


@pytest.mark.parametrize(("is_terminal", "expected"), [(True, "text"), (False, "json")])
def test_auto_is_text_on_a_terminal(
    is_terminal: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)

    assert resolve_log_format("auto") == expected
    assert resolve_log_format("text") == "text"
    assert resolve_log_format("json") == "json"


@pytest.mark.parametrize("text", HOSTILE)
def test_printable_is_one_short_line(text: str) -> None:
    shown = printable(text)

    assert shown.isprintable()
    assert len(shown) < 250
