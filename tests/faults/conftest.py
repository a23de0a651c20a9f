"""One server to attack, for all tests of hostile clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults.attacked import Attacked
from faults.row_figures import IS_ASKED_FOR, ONLY_WHERE_ASKED


@pytest.fixture(scope="package")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A server and its actor, which outlive every test that attacks them."""
    if not IS_ASKED_FOR:
        pytest.skip(ONLY_WHERE_ASKED)
    with Attacked(tmp_path_factory.mktemp("attacked")) as server:
        yield server
