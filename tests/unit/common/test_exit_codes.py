"""docs/exit_codes.md agrees with impala_common/process/exit_codes.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from impala_common import errors
from impala_common.process import exit_codes
from impala_server.local.process import ActorSettingsError

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "exit_codes.md").read_text("utf-8")


def test_page_lists_every_code_by_number_and_name() -> None:
    listed = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.M)}

    assert listed == {
        name: value for name, value in vars(exit_codes).items() if isinstance(value, int)
    }


def test_page_lists_every_error_with_its_code() -> None:
    listed = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.M)}

    assert listed == {kind.__name__: code for kind, code in exit_codes._CODES.items()}


@pytest.mark.parametrize("kind", exit_codes._CODES)
def test_exit_code_of_error_is_that_of_the_table(kind: type[errors.ImpalaError]) -> None:
    assert exit_codes.exit_code_of(kind.__new__(kind)) == exit_codes._CODES[kind]


def test_exit_code_of_an_actors_refusal_is_the_actors() -> None:
    assert exit_codes.exit_code_of(ActorSettingsError("no such environment")) == exit_codes.CONFIG


@pytest.mark.parametrize("error", [KeyError("x"), errors.ImpalaError("x"), MemoryError()])
def test_exit_code_of_anything_else_is_internal(error: BaseException) -> None:
    assert exit_codes.exit_code_of(error) == exit_codes.INTERNAL
