"""One server to attack, for all tests of hostile clients, and a folder for histories."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.attacked import Attacked
from faults.attacked_policy import AttackedPolicy

from impala_common.run.event_history import FOLDER_VARIABLE, ROWS_VARIABLE

_ATTACKED = {"attacked": contextlib.ExitStack(), "attacked_policy": contextlib.ExitStack()}


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A server and its actor, which outlive every test that attacks them."""
    with _ATTACKED["attacked"] as stack:
        yield stack.enter_context(Attacked(tmp_path_factory.mktemp("attacked")))


@pytest.fixture(scope="session")
def attacked_policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedPolicy]:
    """The same for a policy server."""
    with _ATTACKED["attacked_policy"] as stack:
        yield stack.enter_context(AttackedPolicy(tmp_path_factory.mktemp("attacked_policy")))


@pytest.fixture(params=["attacked", "attacked_policy"])
def each_attacked(request: pytest.FixtureRequest) -> Attacked:
    """Each of them in turn."""
    found: Attacked = request.getfixturevalue(request.param)
    return found


def _attacks(item: pytest.Item, name: str) -> bool:
    """Returns whether a test uses the server `name`."""
    calls = getattr(item, "callspec", None)
    chosen = None if calls is None else calls.params.get("each_attacked")
    return name == chosen or name in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the attacks on one server after those on the other, so that one of them is up."""
    items.sort(key=lambda item: _attacks(item, "attacked_policy"))


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Ends a server after the last test of it, not of all: it would keep a core busy."""
    for name, stack in _ATTACKED.items():
        if (
            _attacks(item, name)
            and item is [one for one in item.session.items if _attacks(one, name)][-1]
        ):
            stack.close()


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where servers and actors of this process record what they do."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "history"))
    monkeypatch.setenv(ROWS_VARIABLE, "1")
    return tmp_path / "history"
