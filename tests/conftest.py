"""Settings of all tests: one thread for tensor operations, and the paths of their helpers."""

from __future__ import annotations

import ast
import gc
import logging
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from impala_common.process import logs

# Test modules import the helpers in tests/kit, the packages `faults` and `fuzz` beside it, and
# `benchmarks`, whatever folder and import mode pytest runs with.
sys.path[:0] = [str(Path(__file__).parent / "kit"), str(Path(__file__).parent)]
sys.path.append(str(Path(__file__).parents[1]))

_LONGEST_NAME = 80

if sys.version_info < (3, 12):
    # There ast.parse fails if a collection of garbage in it runs what parses, too: "SystemError:
    # AST constructor recursion depth mismatch". pytest parses the source of what failed.
    _parse = ast.parse

    def _parse_without_collection(*arguments: Any, **more: Any) -> ast.AST:
        is_collecting = gc.isenabled()
        gc.disable()
        try:
            return _parse(*arguments, **more)
        finally:
            if is_collecting:
                gc.enable()

    ast.parse = _parse_without_collection

torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other

# Without it imageio-ffmpeg forks in Python, where gRPC's threads of other tests are.
os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")


@pytest.fixture(autouse=True)
def _own_form_of_logs() -> Iterator[None]:
    """Keeps the form of lines that a command chose in a test from the tests after it."""
    yield
    root = logging.getLogger()
    for handler in [one for one in root.handlers if type(one).__module__ == logs.__name__]:
        root.removeHandler(handler)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names a case after its text, short and in ASCII: names go from process to process."""
    if not isinstance(val, str) or (val.isascii() and len(val) <= _LONGEST_NAME):
        return None
    return ascii(val[:_LONGEST_NAME])[1:-1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps out of reports what no process can send to another: half a surrogate pair in a log."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
