"""Security of the commands: exit codes, messages, and tokens that are never printed."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from commands import Command
from listener_kit import DoorServer, security_of
from running_server import make_config

from impala_actor.admin.certs_command import make_certificates
from impala_common.process.exit_codes import CONFIG, NO_PERMISSION, OK
from impala_common.rpc.tokens import read_token
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("security") / "certs"
    make_certificates(folder)
    return folder


@pytest.mark.parametrize(
    "how", [*(pytest.param(how, marks=pytest.mark.extended) for how in ("token", "tls")), "mtls"]
)
def test_train_lets_its_own_actors_in_and_shows_no_token(
    how: str, tmp_path: Path, files: Path
) -> None:
    """Wildcard address, TLS and token; no token in any argument, log, output or setting."""
    host = "127.0.0.1" if how == "token" else "0.0.0.0"
    options = ["--env", "CartPole-v1", "--host", host, "--port", "0", "--num-actors", "1"]
    options += ["--total-steps", "2000", "--eval-episodes", "0", "--run-dir", "run", "--verbose"]
    for name, path in security_of(files, tls=how != "token", mtls=how == "mtls").items():
        options += ["--" + name.replace("_", "-"), path]
    tokens = [read_token("x", str(files / f"{scope}.token")) for scope in ("actor", "admin")]
    with Command(tmp_path, "impala-train", *options) as train:
        actor = train.wait_until(lambda: train.children("impala_actor"), "actor")[0]
        seen = [psutil.Process(train.process.pid), actor, *train.children()]
        commands = " ".join(" ".join(process.cmdline()) for process in seen)
        assert train.wait() == OK, train.err

    assert "--token-file" in commands
    run = RunDirectory(tmp_path / "run")
    texts = [commands, train.err, train.out, run.config_path.read_text()]
    texts += [path.read_text() for path in run.log_path.iterdir()]
    assert not [text for text in texts for token in tokens if token in text]


def test_server_that_others_can_reach_does_not_start_and_says_how(tmp_path: Path) -> None:
    with Command(tmp_path, "impala-server", "--host", "0.0.0.0", "--run-dir", "run") as server:
        assert server.wait() == CONFIG

    assert "impala-admin certs init DIR --name HOST" in server.err
    assert "--tls-cert DIR/server.crt --tls-key DIR/server.key" in server.err
    assert "--actor-token-file DIR/actor.token" in server.err
    assert not (tmp_path / "run").exists()


def test_certs_init_does_what_the_refusal_says(tmp_path: Path) -> None:
    """The way out, word for word."""
    with Command(tmp_path, "impala-admin", "certs", "init", "DIR", "--name", "HOST") as admin:
        assert admin.wait() == OK, admin.err
    words = ["--tls-cert", "DIR/server.crt", "--tls-key", "DIR/server.key"]
    words += ["--actor-token-file", "DIR/actor.token"]
    options = ["--host", "0.0.0.0", "--port", "0", "--run-dir", "run", *words]
    with Command(tmp_path, "impala-server", *options) as server:
        server.wait_until(RunDirectory(tmp_path / "run").address_path.exists, "address")
        server.interrupt()
        assert server.wait() == OK, server.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "speaks TLS, but no --ca-file was given"),
        (["--ca-file", "ca.crt"], "wants a token and none was sent: pass --token-file"),
        (["--ca-file", "ca.crt", "--token-file", "admin.token"], "has the admin scope"),
        (["--ca-file", "ca.crt", "--server-name", "a.b"], "is not for the name a.b"),
    ],
)
def test_actor_that_is_not_let_in_ends_with_77_and_says_why(
    tmp_path: Path, files: Path, options: list[str], message: str
) -> None:
    paths = [str(files / word) if (files / word).exists() else word for word in options]
    with DoorServer(make_config(security=security_of(files, tls=True))) as server:
        arguments = ["--server", server.address, "--env", "CartPole-v1", *paths]
        with Command(tmp_path, "impala-actor", *arguments) as actor:
            assert actor.wait() == NO_PERMISSION

    assert message in actor.err
    assert "Traceback" not in actor.err
