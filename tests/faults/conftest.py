"""One server to attack, for all tests of hostile clients, and a folder for histories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.attacked import Attacked

from impala_common.event_history import FOLDER_VARIABLE, ROWS_VARIABLE


@pytest.fixture(scope="package")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A server and its actor, which outlive every test that attacks them."""
    with Attacked(tmp_path_factory.mktemp("attacked")) as server:
        yield server


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where servers and actors of this process record what they do."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "history"))
    monkeypatch.setenv(ROWS_VARIABLE, "1")
    return tmp_path / "history"
