"""One server to attack, for all tests of hostile clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults.attacked import Attacked


@pytest.fixture(scope="package")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A server and its actor, which outlive every test that attacks them."""
    with Attacked(tmp_path_factory.mktemp("attacked")) as server:
        yield server
