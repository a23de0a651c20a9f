"""Fixtures of several files: a server, its admin client, a server that trains, a trained agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from admin_peer import Admin, admin_of
from running_server import RunningServer
from seed_agents import Trained

from impala_common.run import metrics


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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An agent that has trained. Do not change it."""
    return Trained(tmp_path_factory.mktemp("seed"))
