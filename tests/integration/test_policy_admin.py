"""The policy server's control plane and its figures: clients, drain, audit, Prometheus."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from admin_peer import Admin
from prometheus_client.parser import text_string_to_metric_families
from running_policy_server import RunningPolicyServer
from running_server import RunningServer, make_config

from impala_common.errors import (
    AddressInUseError,
    InvalidRequestError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from impala_common.rpc.security import ClientSecurity
from impala_common.rpc.tokens import make_token
from impala_common.run import metrics
from impala_policy_server.policy_admin_plane import AdminSettings
from impala_policy_server.policy_metrics import NAMES
from impala_thin import Environment, Observations, ServerUnavailableError, SlotsClient

CARTPOLE = Environment.simple((4,), num_actions=2)


def first(num: int) -> Observations:
    return Observations(
        list(range(num)), np.zeros((num, 4), np.float32), [0.0] * num, is_first=[True] * num
    )


def further(num: int) -> Observations:
    return Observations(list(range(num)), np.zeros((num, 4), np.float32), [1.0] * num)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    config = make_config(transport={"max_actors": 4})
    with RunningServer(tmp_path / "run", config) as running:
        yield running


def admin_settings(path: Path) -> AdminSettings:
    return AdminSettings(
        address=f"unix:{path / 'admin.sock'}",
        address_file=path / "admin_address",
        audit_file=path / "audit.jsonl",
    )


@contextlib.contextmanager
def admin_of(policy: RunningPolicyServer, token: str = "") -> Iterator[Admin]:
    assert policy.bound is not None
    security = ClientSecurity(token_file=token)
    client = Admin(policy.bound.admin_address, security, timeout_s=20.0, request_id="id-1")
    with contextlib.closing(client):
        yield client


def audit_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "audit.jsonl").read_text().splitlines()]


def wait_for(is_so: Any, what: str) -> None:
    waiting = threading.Event()
    for _ in range(400):
        if is_so():
            return
        waiting.wait(0.05)
    raise AssertionError(f"no {what}")


def test_clients_are_listed_with_slots_life_rate_and_version(
    server: RunningServer, tmp_path: Path
) -> None:
    """The fault: repetitions were counted as observations."""
    with (
        RunningPolicyServer(server.address, admin=admin_settings(tmp_path)) as policy,
        admin_of(policy) as admin,
        policy.client(CARTPOLE, 3, client_id="a") as one,
        policy.client(CARTPOLE, 2, client_id="b", is_evaluation=True) as two,
    ):
        assert admin.ask("ListClients")["clients"] == []
        one.act(first(3))
        one.send(further(3))
        one.break_stream()
        one.receive()
        two.act(first(2))
        answer = admin.ask("ListClients")
        wait_for(
            lambda: play(one, 3) and admin.ask("ListClients")["clients"][0]["steps_per_second"] > 0,
            "rate",
        )

    a, b = answer["clients"]
    assert (a["client_id"], b["client_id"]) == ("a", "b")
    assert answer["client_count"] == 2
    assert answer["is_draining"] is False
    assert (a["slot_count"], a["live_slot_count"], a["observation_count"]) == (3, 3, 6)
    assert a["repetition_count"] in (0, 3), "what the broken stream had sent may have arrived"
    assert a["client_run_id"] != b["client_run_id"]
    assert len(a["client_run_id"]) == 16
    assert a["is_connected"]
    assert a["policy_version"] >= 0
    assert a["last_heard_s"] < 10.0
    assert (a["is_evaluation"], b["is_evaluation"]) == (False, True)


def play(client: SlotsClient, num_slots: int) -> bool:
    client.act(further(num_slots))
    return True


def test_clients_come_in_pages_in_the_order_of_their_names(
    server: RunningServer, tmp_path: Path
) -> None:
    with (
        RunningPolicyServer(server.address, admin=admin_settings(tmp_path)) as policy,
        admin_of(policy) as admin,
        contextlib.ExitStack() as clients,
    ):
        for name in ("d", "b", "a", "e", "c"):
            client = clients.enter_context(policy.client(CARTPOLE, 1, client_id=name))
            client.act(first(1))
        pages, token = [], ""
        while True:
            page = admin.ask("ListClients", page_size=2, page_token=token)
            pages.append([one["client_id"] for one in page["clients"]])
            token = page["next_page_token"]
            if not token:
                break
        with pytest.raises(InvalidRequestError, match="page_size"):
            admin.ask("ListClients", page_size=1001)

    assert pages == [["a", "b"], ["c", "d"], ["e"]]


def test_drain_by_an_administrator_ends_the_server_in_order_and_is_audited(
    server: RunningServer, tmp_path: Path
) -> None:
    """Complete unrolls still reach the learner; the client is told to come back later."""
    with RunningPolicyServer(server.address, admin=admin_settings(tmp_path)) as policy:
        with policy.client(CARTPOLE, 8, connect_timeout_s=1.0) as client:
            client.act(first(8))
            for _ in range(40):
                client.act(further(8))
            with admin_of(policy) as admin:
                assert admin.ask("DrainClients") == {"connected_client_count": 1}
            with pytest.raises(ServerUnavailableError):
                client.act(further(8))
        policy.join()
        session = policy.source.session
    server.wait_until(lambda status: status.get(metrics.STEPS, 0) >= 8 * 32)

    assert session.verdicts["ACCEPTED"] >= 1
    drained, end = audit_of(tmp_path)
    assert (drained["what"], drained["outcome"], drained["num_clients"]) == (
        "DrainClients",
        "ok",
        1,
    )
    assert drained["request_id"] == "id-1"
    assert drained["who"].startswith("local user unix:")
    assert (end["what"], end["outcome"]) == ("End", "ok")
    assert "administrator" in end["text"]
    assert not (tmp_path / "admin.sock").exists()
    assert not (tmp_path / "admin_address").exists()


def test_admin_service_has_a_token_of_its_own_and_is_not_on_the_clients_port(
    server: RunningServer, tmp_path: Path
) -> None:
    """The fault: the actors' token, which every thin actor has, drains the server."""
    files = {}
    for name in ("actor", "admin"):
        path = tmp_path / f"{name}.token"
        path.write_text(make_token())
        path.chmod(0o600)
        files[f"{name}_token_file"] = str(path)
    with RunningPolicyServer(
        server.address, admin=admin_settings(tmp_path), security=files
    ) as policy:
        with admin_of(policy) as admin, pytest.raises(UnauthenticatedError):
            admin.ask("ListClients")
        with (
            admin_of(policy, files["actor_token_file"]) as admin,
            pytest.raises(PermissionDeniedError),
        ):
            admin.ask("DrainClients")
        with admin_of(policy, files["admin_token_file"]) as admin:
            assert admin.ask("ListClients")["client_count"] == 0
        on_data_port = Admin(
            policy.address, ClientSecurity(token_file=files["admin_token_file"]), timeout_s=20.0
        )
        with contextlib.closing(on_data_port), pytest.raises(Exception, match="UNIMPLEMENTED"):
            on_data_port.ask("ListClients")


def test_socket_of_a_killed_server_is_replaced_and_that_of_a_living_one_is_not(
    server: RunningServer, tmp_path: Path
) -> None:
    import socket

    settings = admin_settings(tmp_path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "admin.sock"))
    with RunningPolicyServer(server.address, admin=settings) as policy:
        with admin_of(policy) as admin:
            assert admin.ask("ListClients")["client_count"] == 0
        with (
            pytest.raises(AddressInUseError),
            RunningPolicyServer(server.address, admin=settings),
        ):
            pass
        with admin_of(policy) as admin:
            assert admin.ask("ListClients")["client_count"] == 0


def test_prometheus_shows_clients_batches_repetitions_and_verdicts(server: RunningServer) -> None:
    with RunningPolicyServer(server.address, prometheus_port=-1, slot_timeout_s=20.0) as policy:
        before = scrape(policy)
        with policy.client(CARTPOLE, 8) as client:
            client.act(first(8))
            client.send(further(8))
            client.break_stream()
            client.receive()
            for _ in range(70):
                client.act(further(8))
            wait_for(lambda: policy.source.session.verdicts["ACCEPTED"] >= 1, "verdict")
            after = scrape(policy)
        engine = policy.source._engine

    assert before["impala_policy_server_clients", "connected"] == 0
    assert after["impala_policy_server_clients", "connected"] == 1
    assert after["impala_policy_server_slots", "live"] == 8
    assert after["impala_policy_server_decisions_total", ""] == engine.counts.decisions == 72 * 8
    assert after["impala_policy_server_repetitions_total", ""] == engine.counts.repetitions
    assert after["impala_policy_server_batch_slots_count", ""] == 72
    assert after["impala_policy_server_batch_slots_sum", ""] == 72 * 8
    assert after["impala_policy_server_batch_slots_bucket", "4"] == 0
    assert after["impala_policy_server_batch_slots_bucket", "8"] == 72
    assert after["impala_policy_server_batch_wait_seconds_count", ""] == 72
    assert after["impala_policy_server_messages_total", "accepted"] >= 1
    assert after["impala_policy_server_sent_steps_total", ""] >= 8 * 32
    assert after["impala_policy_server_lag_updates", ""] >= 0
    shown = {name.removesuffix("_total") for name in families(policy_text)}
    assert shown == {name.removesuffix("_total") for name in NAMES}


policy_text: list[str] = []


def families(texts: list[str]) -> set[str]:
    return {
        family.name
        for family in text_string_to_metric_families(texts[-1])
        if family.name.startswith("impala_policy_server")
    }


def scrape(policy: RunningPolicyServer) -> dict[tuple[str, str], float]:
    """Returns values by name and the value of the one label."""
    assert policy.bound is not None
    url = f"http://{policy.bound.prometheus_address}/metrics"
    with urllib.request.urlopen(url, timeout=20.0) as response:
        text = response.read().decode()
    policy_text.append(text)
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("impala_policy_server")
    }
