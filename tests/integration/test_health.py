"""Health, reflection and channelz through standard clients; and impala-health."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from admin_peer import admin_of
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from raw_peer import peer_of
from running_server import TINY, RunningServer, make_config

from impala_common import health_cli
from impala_common.process.heartbeat import Heartbeat, read_age_s
from impala_server.front_end.monitoring.health import LEARNER_SERVICE, LEARNING, SERVICES

pytestmark = pytest.mark.timeout(60)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "run") as running:
        yield running


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as made:
        yield made


def check(channel: grpc.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=5.0).status


def test_learner_that_waits_for_its_first_actor_serves_but_does_not_learn(
    server: RunningServer, channel: grpc.Channel
) -> None:
    """Seen to fail with LEARNING that asks for nothing but a live learner."""
    before = {name: check(channel, name) for name in SERVICES}
    with peer_of(server) as peer:
        peer.register()
        after = {name: check(channel, name) for name in SERVICES}

    assert before == {**dict.fromkeys(SERVICES, SERVING), LEARNING: NOT_SERVING}
    assert after == dict.fromkeys(SERVICES, SERVING)


def test_learner_that_drains_is_alive_and_not_ready(
    server: RunningServer, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For whoever kills what is not alive: an administrator's drain lasts until the shutdown.

    Before: there was nothing to ask for that served while the learner drained.
    """
    with peer_of(server) as peer, admin_of(server) as admin:
        peer.register()
        admin.ask("Drain")

        drained = {name: check(channel, name) for name in SERVICES}
        for name in ("SILENCE_S", "START_SILENCE_S"):
            monkeypatch.setattr(f"impala_server.front_end.monitoring.health.{name}", 0.0)
        hung = {name: check(channel, name) for name in SERVICES}

    assert drained == {**dict.fromkeys(SERVICES, NOT_SERVING), "alive": SERVING}
    assert hung == dict.fromkeys(SERVICES, NOT_SERVING)


def test_name_nobody_has_is_not_found(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        check(channel, "impala_rl.v1.NoService" + "x" * 1000)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert len(caught.value.details()) < 300


def test_watchers_are_told_of_the_drain_even_when_another_left(
    server: RunningServer, channel: grpc.Channel
) -> None:
    """Seen to fail with grpc_health.aio.HealthServicer: the one who leaves takes them along."""
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=LEARNER_SERVICE)
    leaver, stayer = stub.Watch(request, timeout=30.0), stub.Watch(request, timeout=30.0)
    assert next(leaver).status == next(stayer).status == SERVING
    leaver.cancel()
    with peer_of(server) as peer:
        peer.register()
        stream = peer.push().hello()
        stream.offer(peer.message(8))  # so hello was heard, and the stream stands
        server.supervisor.request_stop()

        assert next(stayer).status == NOT_SERVING
        assert stream.next().WhichOneof("payload") == "drain"
    stayer.cancel()


def test_watch_of_unknown_name_says_so_and_watches_are_limited(
    channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail (a third answer) without a limit."""
    monkeypatch.setattr("impala_server.front_end.monitoring.health._MAX_WATCHES", 2)
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="nobody")
    watches = [stub.Watch(request, timeout=30.0) for _ in range(2)]
    assert [next(watch).status for watch in watches] == [SERVICE_UNKNOWN] * 2

    with pytest.raises(grpc.RpcError) as caught:
        next(stub.Watch(request, timeout=5.0))

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert check(channel) == SERVING
    for watch in watches:
        watch.cancel()


def test_learner_that_hangs_is_not_well(
    server: RunningServer, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with a check of nothing but `ended`."""
    with peer_of(server) as peer:
        peer.register()
        assert check(channel) == SERVING
        for name in ("SILENCE_S", "START_SILENCE_S"):
            monkeypatch.setattr(f"impala_server.front_end.monitoring.health.{name}", 0.0)

        assert check(channel) == NOT_SERVING


def test_reflection_lists_and_describes_every_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)

    services = set(database.get_services())
    file = database.FindFileContainingSymbol(LEARNER_SERVICE)

    assert services == {
        LEARNER_SERVICE,
        "impala_rl.v1.EvaluationService",
        "grpc.health.v1.Health",
        "grpc.channelz.v1.Channelz",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert {method.name for method in file.service[0].method} >= {"Register", "PushUnrolls"}


def test_channelz_tells_of_the_server(channel: grpc.Channel) -> None:
    check(channel)
    stub = channelz_pb2_grpc.ChannelzStub(channel)

    response = stub.GetServers(channelz_pb2.GetServersRequest(), timeout=5.0)

    assert any(one.data.calls_succeeded >= 1 for one in response.server)


def test_listener_that_others_reach_has_neither_reflection_nor_channelz(tmp_path: Path) -> None:
    """Seen to fail with services that are added whatever the host is."""
    config = make_config(
        transport={"host": "0.0.0.0", "allow_insecure_public_bind_without_tls": True}
    )
    with RunningServer(tmp_path / "run", config) as server:
        port = server.address.rpartition(":")[2]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert check(channel) == SERVING
            with pytest.raises(grpc.RpcError) as caught:
                list(ProtoReflectionDescriptorDatabase(channel).get_services())
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            with pytest.raises(grpc.RpcError) as of_channelz:
                stub.GetServers(channelz_pb2.GetServersRequest(), timeout=5.0)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert of_channelz.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_command_of_a_server(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert health_cli.run(["--server", server.address]) == 0
    assert health_cli.run(["--server", server.address, "--service", LEARNING]) == 1
    assert health_cli.run(["--server", server.address, "--service", "nobody"]) == 1
    assert health_cli.run(["--server", "127.0.0.1:1"]) == 1

    said = capsys.readouterr()
    assert said.out == f"well: the server at {server.address} is SERVING\n"
    lines = said.err.splitlines()
    assert lines[0] == f"not well: learning at {server.address} is NOT_SERVING"
    assert "NOT_FOUND" in lines[1]
    assert "UNAVAILABLE" in lines[2]


def test_health_command_of_an_actor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the clock reading in the file; its date moves when somebody sets the clock."""
    path = tmp_path / "beat"
    asked = ["--actor-file", str(path), "--max-age-s", "5"]
    assert health_cli.run(asked) == 1
    Heartbeat(str(path)).beat()
    assert health_cli.run(asked) == 0
    path.write_text(f"{time.monotonic() - 6.0}")
    assert health_cli.run(asked) == 1
    path.write_text(f"{time.monotonic() + 1000.0}")
    assert health_cli.run(asked) == 1
    path.write_text("nonsense")
    assert health_cli.run(asked) == 1

    said = capsys.readouterr()
    assert said.out.startswith("well: the actor moved 0.")
    told = ("--heartbeat-file", "not moved for 6.", "before the machine", "no heartbeat")
    for text, line in zip(told, said.err.splitlines(), strict=True):
        assert text in line


@pytest.mark.parametrize("arguments", [[], ["--server", "x:1", "--actor-file", "y"]])
def test_health_command_without_anything_to_ask_is_a_mistake(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        health_cli.run(arguments)

    assert caught.value.code == 2


def test_health_command_imports_nothing_heavy(server: RunningServer) -> None:
    code = (
        "import sys; from impala_common.health_cli import run; "
        f"code = run(['--server', {server.address!r}]); "
        "heavy = {'torch', 'numpy', 'gymnasium', 'tyro', 'rich'} & set(sys.modules); "
        "sys.exit(code or sorted(heavy) or None)"
    )
    start_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start_s < 5.0, "half a second on a machine with nothing else to do"


def test_heartbeat_of_an_actor_goes_on_while_it_plays(
    server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "beat"
    actor = server.run_actor(TINY + "Counting-v0", heartbeat_file=str(path))
    server.wait_until(lambda status: status.get("steps", 0) > 100)

    assert read_age_s(path) < 5.0
    actor.stop()


def test_heartbeat_that_cannot_be_written_costs_a_warning_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beat = Heartbeat(str(tmp_path / "no" / "such" / "folder"))
    beat.beat()
    beat._beaten_s = float("-inf")
    beat.beat()

    assert len(caplog.records) == 1
