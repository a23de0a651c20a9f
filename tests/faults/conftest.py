"""What fault tests share: the path of their helpers, and one server to attack."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attacked import Attacked


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A server and its actor, which outlive every test that attacks them."""
    with Attacked(tmp_path_factory.mktemp("attacked")) as server:
        yield server
