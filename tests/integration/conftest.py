"""Fixtures of several files: servers, an admin client, a trained agent, foreign clients."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from admin_peer import Admin, admin_of
from running_server import RunningServer
from seed_agents import Trained

from impala_common.run import metrics

EXAMPLES = Path(__file__).parents[2] / "examples" / "clients"


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


@pytest.fixture(scope="session")
def javascript_client() -> list[str]:
    """The command of the client in JavaScript, to which address and slots are added."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (EXAMPLES / "node" / "node_modules" / "@grpc").is_dir():
        pytest.skip("run `npm install` in examples/clients/node")
    return ["node", str(EXAMPLES / "node" / "thin_actor.js")]


@pytest.fixture(scope="session")
def cpp_client() -> Path:
    """The C++ client, built where it lies (again only after a change), without optimisation."""
    for program in ("cmake", "g++", "pkg-config", "protoc", "grpc_cpp_plugin"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], timeout=60).returncode:
        pytest.skip("libgrpc++-dev is not installed")
    source, build = EXAMPLES / "cpp", EXAMPLES / "cpp" / "build"
    for command in (
        ["cmake", "-S", str(source), "-B", str(build), "-DCMAKE_BUILD_TYPE=Debug"],
        ["cmake", "--build", str(build), "--parallel", "2"],
    ):
        made = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert made.returncode == 0, made.stdout + made.stderr
    return build / "thin_actor"
