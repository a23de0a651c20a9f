"""Fixtures of the admin tests: a server, its admin client, and a server that trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from admin_peer import Admin, admin_of
from harness import RunningServer

from impala_common import metrics


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "run") as running:
        yield running


@pytest.fixture
def admin(server: RunningServer) -> Iterator[Admin]:
    with admin_of(server) as client:
        yield client


@pytest.fixture
def training(server: RunningServer) -> RunningServer:
    """A server that has made some updates and goes on."""
    server.run_actor("CartPole-v1")
    server.wait_until(lambda status: status.get(metrics.UPDATES, 0) >= 3)
    return server
