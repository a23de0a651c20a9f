"""The policy server's port is guarded as a learner's is."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running_policy_server import RunningPolicyServer
from running_server import RunningServer

from impala_actor.admin.certs_command import make_certificates
from impala_thin import Environment, Observations, RefusedError, ServerUnavailableError

CARTPOLE = Environment.simple((4,), num_actions=2)
FIRST = Observations([0], np.zeros((1, 4), np.float32), [0.0], is_first=[True])


def write_token(path: Path, text: str) -> str:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def test_client_needs_the_token_and_the_certificates_ca(tmp_path: Path) -> None:
    """Plain tokens on loopback, then TLS; a wrong token and none are refused for good."""
    make_certificates(tmp_path / "certs", ["localhost"])
    certs = tmp_path / "certs"
    wrong = write_token(tmp_path / "wrong", "b" * 64)
    token, ca = str(certs / "actor.token"), str(certs / "ca.crt")
    security = {
        "tls_cert": str(certs / "server.crt"),
        "tls_key": str(certs / "server.key"),
        "actor_token_file": token,
    }
    with (
        RunningServer(tmp_path / "run") as server,
        RunningPolicyServer(server.address, security=security) as policy,
    ):
        for given in ("", wrong):
            with (
                policy.client(
                    CARTPOLE, ca_file=ca, server_name="localhost", token_file=given
                ) as client,
                pytest.raises(RefusedError, match="UNAUTHENTICATED"),
            ):
                client.act(FIRST)
        with policy.client(
            CARTPOLE, ca_file=ca, server_name="localhost", token_file=token
        ) as client:
            assert client.act(FIRST).slots == [0]


def test_mutual_tls_wants_the_clients_certificate(tmp_path: Path) -> None:
    """Without one the handshake fails, which a client takes for a broken network."""
    certs = tmp_path / "certs"
    make_certificates(certs, ["localhost"])
    tls = {"ca_file": str(certs / "ca.crt"), "server_name": "localhost"}
    pair = {"client_cert": str(certs / "client.crt"), "client_key": str(certs / "client.key")}
    security = {
        "tls_cert": str(certs / "server.crt"),
        "tls_key": str(certs / "server.key"),
        "tls_client_ca": str(certs / "ca.crt"),
        "actor_token_file": str(certs / "actor.token"),
    }
    token = {"token_file": str(certs / "actor.token")}
    with (
        RunningServer(tmp_path / "run") as server,
        RunningPolicyServer(server.address, security=security) as policy,
    ):
        with policy.client(CARTPOLE, **tls, **pair, **token) as client:
            assert client.act(FIRST).slots == [0]
        with (
            policy.client(CARTPOLE, **tls, **token, connect_timeout_s=2.0) as client,
            pytest.raises(ServerUnavailableError),
        ):
            client.act(FIRST)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"client_cert": "a", "ca_file": "b"}, "client_key"),
        ({"client_key": "a", "ca_file": "b"}, "client_cert"),
        ({"client_cert": "a", "client_key": "b"}, "ca_file"),
    ],
)
def test_half_of_a_client_certificate_is_refused(given: dict[str, str], text: str) -> None:
    from impala_thin.hello import ClientSettings

    with pytest.raises(RefusedError, match=text):
        ClientSettings(server="127.0.0.1:1", **given)


def test_token_is_not_sent_in_the_clear_to_another_machine(tmp_path: Path) -> None:
    from impala_thin import SlotsClient
    from impala_thin.hello import ClientSettings

    token = write_token(tmp_path / "token", "a" * 64)
    settings = ClientSettings(server="192.0.2.1:50052", token_file=token)

    with pytest.raises(RefusedError, match="in the clear"):
        SlotsClient(CARTPOLE, 1, settings=settings)


def test_health_is_answered_to_everyone(tmp_path: Path) -> None:
    with (
        RunningPolicyServer("127.0.0.1:1") as policy,
        grpc.insecure_channel(policy.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "impala_rl.v1.PolicyService", "alive"):
            request = health_pb2.HealthCheckRequest(service=service)
            response = stub.Check(request, timeout=20.0)
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.Check(health_pb2.HealthCheckRequest(service="learning"), timeout=20.0)
