"""One server to attack, for all tests of hostile clients, and a folder for histories."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.attacked import Attacked

from impala_common.run.event_history import FOLDER_VARIABLE, ROWS_VARIABLE

_ATTACKED = contextlib.ExitStack()


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A server and its actor, which outlive every test that attacks them."""
    with _ATTACKED:
        yield _ATTACKED.enter_context(Attacked(tmp_path_factory.mktemp("attacked")))


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Ends that server after the last test of it, not of all: it would keep a core busy."""
    if "attacked" in getattr(item, "fixturenames", ()):
        of_it = [
            one for one in item.session.items if "attacked" in getattr(one, "fixturenames", ())
        ]
        if item is of_it[-1]:
            _ATTACKED.close()


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where servers and actors of this process record what they do."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "history"))
    monkeypatch.setenv(ROWS_VARIABLE, "1")
    return tmp_path / "history"
