"""Slow links, connections of a limited age, pings, idle resets (docs/faults.md, 18, 21-23)."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest
from faults.figures import read_events
from faults.proxy import FaultProxy
from faults.row_figures import amount, full_only, record
from raw_http2 import GOAWAY, PING, RawClient, frame
from raw_peer import Peer
from running_server import RunningActor, RunningServer, make_config

from impala_common.rpc.addresses import port_of
from impala_common.rpc.channel import server_options
from impala_common.run import metrics
from impala_common.testing.history_checker import check
from impala_common.testing.patterns import SIGNED_ID

pytestmark = pytest.mark.timeout(180)

CONFIG = make_config(environment={"envs_per_actor": 4}, transport={"port": 0})
BYTES_PER_S = 8_000
"""64 kbit/s."""


@pytest.mark.parametrize("num_envs", [16, pytest.param(256, marks=full_only)])
def test_link_that_collapses_delays_its_actor_and_wedges_nothing(
    tmp_path: Path, history: Path, num_envs: int
) -> None:
    """Slow link: at 64 kbit/s a message takes 1 s; or 14, longer than any connection (18).

    Others train on, so that what comes late is stale.
    """
    config = make_config(environment={"envs_per_actor": 4}, rollout={"max_policy_lag": 200})
    with RunningServer(tmp_path / "run", config) as server:
        near = server.run_actor(SIGNED_ID, "near")
        address = server.address
        with FaultProxy(port_of(address)) as proxy:
            server.address = f"127.0.0.1:{proxy.port}"
            settings = {"num_envs": num_envs, "compress": False, "connect_timeout_s": 0.0}
            far = server.run_actor(SIGNED_ID, "far", **settings)
            steps_per_s = wait_for_messages(far, num_envs, 20)
            proxy.limit_rate(BYTES_PER_S)
            before, begin_s = (far.actor.num_steps, updates(server)), time.monotonic()
            threading.Event().wait(amount(4, 15))
            slow_per_s = (far.actor.num_steps - before[0]) / (time.monotonic() - begin_s)
            server.wait_until(lambda status: status[metrics.UPDATES] > before[1] + 10)
            proxy.heal()
            healed_s = time.monotonic()
            wait_for_messages(far, num_envs, 2)
            resume_s = time.monotonic() - healed_s
            wait_for_messages(far, num_envs, 4)
            for actor in (far, near):
                actor.stop()
        server.address = address
        server.stop()

    report = check(history)
    report.raise_if_violated()
    outcomes = far.actor.outcomes
    record(
        18,
        steps_per_s_before=steps_per_s,
        steps_per_s_during=slow_per_s,
        stale=outcomes.get("STALE", 0),
        resume_s=resume_s,
        connections=proxy.num_connections,
    )
    assert outcomes["ACCEPTED"] > 20


def test_connections_of_a_limited_age_are_followed_by_others_and_nothing_is_lost(
    tmp_path: Path, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GOAWAY in the middle of messages, and a moment later the end of open streams (21).

    Seen to fail with a sender that does not send again what was not answered: it waits for ever.
    """
    age_s, number = amount(1, 2), amount(3, 6)
    aged = [
        ("grpc.max_connection_age_ms", 1000 * age_s),
        ("grpc.max_connection_age_grace_ms", 300),
    ]
    name = "impala_server.front_end.process.server_options"
    monkeypatch.setattr(name, lambda limit: server_options(limit) + aged)
    with RunningServer(tmp_path / "run", CONFIG) as server:
        with FaultProxy(port_of(server.address)) as proxy:
            address, server.address = server.address, f"127.0.0.1:{proxy.port}"
            actors = [server.run_actor(SIGNED_ID) for _ in range(2)]
            server.wait_until(lambda _status: proxy.num_connections > number, 60.0)
            seen = updates(server)
            server.wait_until(lambda status: status[metrics.UPDATES] > seen + 10)
            for actor in actors:
                actor.stop()
            server.address = address
        server.stop()

    report = check(history)
    report.raise_if_violated()
    events = [event for path in history.glob("actor-*") for event in read_events(path)]
    num_sessions = sum(event["event"] == "session" for event in events)
    record(
        21,
        ages=proxy.num_connections,
        age_s=age_s,
        duplicates=report.figures["duplicates_received"],
        registered_again=num_sessions - len(actors),
    )
    assert num_sessions == len(actors), "they had to register again"
    assert report.figures["unrolls_trained"] > 0


@pytest.mark.parametrize("interval_s", [0.1, pytest.param(1.0, marks=full_only)])
def test_pings_of_our_clients_are_welcome_and_too_many_of_others_are_not(
    tmp_path: Path, interval_s: float
) -> None:
    """Pings (22). Seen to fail, at full length, with gRPC's own minimum of 5 minutes."""
    patience_s = amount(1, 15)
    with (
        RunningServer(tmp_path, CONFIG) as server,
        FaultProxy(port_of(server.address)) as proxy,
        FaultProxy(port_of(server.address)) as idle_proxy,  # else both share a connection
        contextlib.closing(Peer(f"127.0.0.1:{idle_proxy.port}")) as idle,
    ):
        address, server.address = server.address, f"127.0.0.1:{proxy.port}"
        actor = server.run_actor("CartPole-v1")
        before = updates(server)  # so the run is there
        idle.register()
        start_s = time.monotonic()
        num_pings, told = ping_until_cut(address, interval_s)
        cut_s = time.monotonic() - start_s
        threading.Event().wait(max(0.0, patience_s - cut_s))
        idle.register()
        server.wait_until(lambda status: status[metrics.UPDATES] > before + 5)
        actor.stop()
        server.address = address

    assert b"too_many_pings" in told
    reconnects = proxy.num_connections + idle_proxy.num_connections - 2
    record(22, patience_s=patience_s, pings=num_pings, cut_s=cut_s, reconnects=reconnects)
    assert reconnects == 0, "one of ours was cut"


@full_only
def test_idle_connection_outlives_a_proxy_that_resets_idle_ones(tmp_path: Path) -> None:
    """Pings count as traffic (23). Seen to fail with both sides' keepalive at 60 s."""
    idle_s = 30
    with (
        RunningServer(tmp_path) as server,
        FaultProxy(port_of(server.address), idle_s) as proxy,
        contextlib.closing(Peer(f"127.0.0.1:{proxy.port}")) as peer,
    ):
        peer.register()
        threading.Event().wait(1.5 * idle_s)
        peer.register()
        reconnects = proxy.num_connections - 1
    record(23, idle_s=idle_s, reconnects=reconnects)
    assert (reconnects, proxy.num_idle_resets) == (0, 0)


def updates(server: RunningServer) -> int:
    server.supervisor.poll(0.0)
    return int(server.wait_until(lambda status: metrics.UPDATES in status)[metrics.UPDATES])


def wait_for_messages(running: RunningActor, num_envs: int, number: int) -> float:
    """Waits until an actor has sent `number` more messages.

    Returns:
      Steps it made a second meanwhile.
    """
    start_s, begin = time.monotonic(), running.actor.num_steps
    wanted = begin + number * num_envs * CONFIG.rollout.unroll_length
    while running.actor.num_steps < wanted:
        assert running.error is None, running.error
        assert time.monotonic() < start_s + 60.0, "it does not go on"
        threading.Event().wait(0.05)
    return float((running.actor.num_steps - begin) / (time.monotonic() - start_s))


def ping_until_cut(address: str, interval_s: float) -> tuple[int, bytes]:
    """Pings until the server says GOAWAY; returns how often, and what it said."""
    with RawClient(address) as client:
        assert client.wait_for_settings()
        for number in range(1, 100):
            client.socket.sendall(frame(PING, 0, 0, number.to_bytes(8, "big")))
            with contextlib.suppress(TimeoutError):
                for kind, _, payload in client.frames(interval_s):
                    if kind == GOAWAY:
                        return number, payload
    raise AssertionError("the server took a hundred pings")
