"""What impala-train's own actors and evaluator are told is what their command lines hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tyro

from impala_actor.acting.actor_config import ActorConfig
from impala_actor.admin.certs_command import make_certificates
from impala_actor.evaluation.evaluator_config import EvaluatorConfig
from impala_common.config import EnvironmentConfig, SecurityConfig, TrainConfig
from impala_common.errors import ConfigError
from impala_common.rpc.security import ClientSecurity
from impala_server.local.process import client_options
from impala_server.local.security import local_client_security

TCP, UNIX = "127.0.0.1:50051", "unix:/tmp/learner.sock"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "certs"
    make_certificates(folder)
    return folder


def make_security(certs: Path, kind: str) -> SecurityConfig:
    """Returns the learner's settings: no security, a token, TLS, or TLS both ways."""
    settings = {}
    if kind != "none":
        settings["actor_token_file"] = str(certs / "actor.token")
    if kind in ("tls", "mutual"):
        settings |= {
            "tls_cert": str(certs / "server.crt"),
            "tls_key": str(certs / "server.key"),
            "admin_token_file": str(certs / "admin.token"),
        }
    if kind == "mutual":
        settings["tls_client_ca"] = str(certs / "ca.crt")
    return SecurityConfig(**settings)


@pytest.mark.parametrize("kind", ["none", "token", "tls", "mutual"])
@pytest.mark.parametrize("address", [TCP, UNIX])
@pytest.mark.parametrize("parsed_as", [ActorConfig, EvaluatorConfig])
def test_options_parse_to_what_the_settings_need(
    certs: Path, kind: str, address: str, parsed_as: type[ActorConfig | EvaluatorConfig]
) -> None:
    environment = EnvironmentConfig(env="CartPole-v1", env_wrapper=("a:B", "c:D"))
    security = make_security(certs, kind)
    config = dataclasses.replace(TrainConfig(), environment=environment, security=security)

    options = client_options(config, address, "CartPole-v1")
    parsed = tyro.cli(parsed_as, args=options, config=(tyro.conf.OmitArgPrefixes,))

    assert parsed.server == address
    assert parsed.env_wrapper == ("a:B", "c:D")
    assert parsed.exit_with_parent
    assert parsed.security == local_client_security(security, address)
    has_tls = kind in ("tls", "mutual") and address == TCP
    is_mutual = kind == "mutual" and address == TCP
    assert parsed.security == ClientSecurity(
        token_file="" if kind == "none" else str(certs / "actor.token"),
        ca_file=str(certs / "ca.crt") if has_tls else "",
        server_name="localhost" if has_tls else "",
        client_cert=str(certs / "client.crt") if is_mutual else "",
        client_key=str(certs / "client.key") if is_mutual else "",
    )


def test_missing_file_is_named_before_anything_starts(certs: Path, tmp_path: Path) -> None:
    for name in ("server.crt", "server.key", "actor.token"):
        (tmp_path / name).write_bytes((certs / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    security = make_security(tmp_path, "tls")

    with pytest.raises(ConfigError, match=r"ca\.crt"):
        local_client_security(security, TCP)
