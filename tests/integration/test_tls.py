"""TLS errors are named within seconds; a running learner takes up new certificates.

"Planted" in a docstring names a fault that was put into a copy of the code to see the test fail.
"""

from __future__ import annotations

import datetime
import logging
import os
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from commands import free_port
from cryptography import x509
from listener_kit import DoorServer, all_methods, call, security_of
from running_server import RunningServer, make_config

from impala_actor.acting.learner_client import LearnerClient
from impala_actor.admin.certificate_authority import CertificateAuthority, Pair
from impala_actor.admin.certs_command import make_certificates
from impala_common.errors import (
    ConfigError,
    ImpalaError,
    LearnerUnavailableError,
    TlsError,
)
from impala_common.rpc.channel import make_channel
from impala_common.rpc.security import ClientSecurity
from impala_common.rpc.tokens import make_token
from impala_server.front_end.listener.credentials import _Certificates

GET_CONFIG = next(method for method in all_methods() if method.name.endswith("Service/GetConfig"))
OK = grpc.StatusCode.OK
MAX_DIAGNOSIS_S = 5.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("security") / "certs"
    make_certificates(folder)
    (folder / "wrong.token").write_text(make_token())
    (folder / "wrong.token").chmod(0o600)
    return folder


# -- TLS that does not fit -------------------------------------------------------------------

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
NAMES = ["127.0.0.1", "localhost"]


def write_pair(folder: Path, pair: Pair, name: str = "server") -> None:
    """Puts a pair in place as tools do: whole files, by renaming."""
    for suffix, content in (("key", pair.key), ("crt", pair.certificate)):
        temporary = folder / f".{name}.{suffix}"
        temporary.write_bytes(content)
        temporary.chmod(0o600)
        os.replace(temporary, folder / f"{name}.{suffix}")


def seconds_until_error(address: str, security: ClientSecurity) -> tuple[float, ImpalaError]:
    client = LearnerClient(address, "a", connect_timeout_s=20.0, security=security)
    start_s = time.monotonic()
    with pytest.raises(ImpalaError) as caught:
        client.get_defaults()
    elapsed_s = time.monotonic() - start_s
    client.close()
    return elapsed_s, caught.value


class Misfit:
    """A server's settings and a client's, made in a folder, that do not fit each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = CertificateAuthority()
        self.other = CertificateAuthority(name="another CA")
        write_pair(folder, self.authority.pair, "ca")
        write_pair(folder, self.other.pair, "other_ca")
        write_pair(folder, self.authority.issue_server(NAMES))
        write_pair(folder, self.other.issue_client("b"), "stranger")
        self.server = security_of(folder, tls=True, tokens=False)
        self.client: dict[str, str] = {"ca_file": str(folder / "ca.crt")}

    def plaintext_client(self) -> None:
        self.client = {}

    def plaintext_server(self) -> None:
        self.server = {}

    def expired(self) -> None:
        pair = self.authority.issue_server(NAMES, NOW - 9 * DAY, NOW - DAY)
        write_pair(self.folder, pair)

    def not_yet_valid(self) -> None:
        pair = self.authority.issue_server(NAMES, NOW + DAY, NOW + 9 * DAY)
        write_pair(self.folder, pair)

    def wrong_ca(self) -> None:
        self.client["ca_file"] = str(self.folder / "other_ca.crt")

    def wrong_name(self) -> None:
        write_pair(self.folder, self.authority.issue_server(["learner.example.org"]))

    def wrong_server_name(self) -> None:
        self.client["server_name"] = "learner.example.org"

    def no_client_certificate(self) -> None:
        self.server = security_of(self.folder, tls=True, tokens=False, mtls=True)

    def foreign_client_certificate(self) -> None:
        self.no_client_certificate()
        self.client["client_cert"] = str(self.folder / "stranger.crt")
        self.client["client_key"] = str(self.folder / "stranger.key")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("plaintext_client", "speaks TLS, but no --ca-file was given"),
        ("plaintext_server", "does not speak TLS, but --ca-file was given"),
        ("expired", f"expired on {NOW - DAY:%Y-%m-%d}"),
        ("not_yet_valid", f"is not yet valid before {NOW + DAY:%Y-%m-%d}.*clocks"),
        ("wrong_ca", "does not come from the CA in .*other_ca.crt .*impala-rl development CA"),
        ("wrong_name", r"is not for the name 127.0.0.1; it is for learner\.example\.org"),
        ("wrong_server_name", r"is not for the name learner\.example\.org; it is for localhost"),
        ("no_client_certificate", "demands a client certificate.*pass --client-cert"),
        ("foreign_client_certificate", r"refuses the client certificate .*stranger\.crt"),
    ],
)
def test_tls_that_does_not_fit_is_named_within_five_seconds(
    tmp_path: Path, what: str, message: str, record_property: Any
) -> None:
    """Planted: the probe left out (the actor then waits for connect_timeout_s)."""
    misfit = Misfit(tmp_path)
    getattr(misfit, what)()
    with DoorServer(make_config(security=misfit.server)) as server:
        elapsed_s, error = seconds_until_error(server.address, ClientSecurity(**misfit.client))

    assert isinstance(error, TlsError), error
    assert pytest.approx(0, abs=MAX_DIAGNOSIS_S) == elapsed_s
    with pytest.raises(TlsError, match=message):
        raise error
    assert server.address in str(error)
    record_property("seconds", round(elapsed_s, 2))


@pytest.mark.parametrize("tls", [False, True])
def test_nobody_there_is_no_matter_of_tls(files: Path, tls: bool) -> None:
    security = ClientSecurity(ca_file=str(files / "ca.crt") if tls else "")
    client = LearnerClient(
        f"127.0.0.1:{free_port()}", "a", connect_timeout_s=0.5, security=security
    )
    with pytest.raises(LearnerUnavailableError, match="no learner at"):
        client.get_defaults()
    client.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_file": "actor.token"}, "would travel to learner.example.org:1 in the clear"),
        ({"ca_file": "missing.crt"}, "--ca-file is .* a readable file"),
        ({"ca_file": "actor.token"}, "--ca-file is .* PEM certificates"),
        ({"ca_file": "ca.crt", "token_file": "missing.token"}, "--token-file is .* readable"),
        ({"client_cert": "client.crt"}, "--client-key"),
        ({"client_cert": "client.crt", "client_key": "client.key"}, "without --ca-file"),
        ({"server_name": "a"}, "--server-name is .* without --ca-file"),
        (
            {"ca_file": "ca.crt", "client_cert": "client.crt", "client_key": "server.key"},
            "--client-cert is .* whose key is .*key values mismatch",
        ),
    ],
)
def test_client_settings_that_cannot_work_are_refused_before_anything_is_sent(
    files: Path, settings: dict[str, str], message: str
) -> None:
    paths = {
        name: value if name == "server_name" else str(files / value)
        for name, value in settings.items()
    }
    with pytest.raises(ConfigError, match=message):
        make_channel("learner.example.org:1", ClientSecurity(**paths)).close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_cert": "missing.crt", "tls_key": "server.key"}, "tls_cert is .* readable"),
        ({"tls_cert": "server.crt", "tls_key": "client.key"}, "key values mismatch"),
        ({"tls_cert": "server.crt", "tls_key": "open.key"}, "tls_key is .* mode is 0644"),
        ({"actor_token_file": "open.key"}, "actor_token_file is .* mode is 0644"),
        ({"actor_token_file": "server.key"}, "actor_token_file is .* a file of one token"),
        (
            {"actor_token_file": "actor.token", "admin_token_file": "actor.token"},
            "every actor could administrate",
        ),
        (
            {"tls_cert": "server.crt", "tls_key": "server.key", "tls_client_ca": "actor.token"},
            "tls_client_ca is .* PEM certificates",
        ),
    ],
)
def test_learner_with_files_that_cannot_work_does_not_start(
    tmp_path: Path, files: Path, settings: dict[str, str], message: str
) -> None:
    open_key = files / "open.key"
    open_key.write_bytes((files / "server.key").read_bytes())
    open_key.chmod(0o644)
    paths = {name: str(files / value) for name, value in settings.items()}

    with (
        pytest.raises(ConfigError, match=message),
        RunningServer(tmp_path, make_config(security=paths)),
    ):
        pass


# -- certificates that change ----------------------------------------------------------------


def serial_of_server(address: str) -> int:
    host, _, port = address.rpartition(":")
    text = ssl.get_server_certificate((host, int(port)), timeout=5.0)
    return x509.load_pem_x509_certificate(text.encode()).serial_number


def serial_in(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def test_pair_that_does_not_fit_at_one_handshake_alone_is_no_complaint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificate and key are replaced one after the other, and a handshake may come in between.

    Before: the first such handshake was logged as an error.
    """
    misfit = Misfit(tmp_path)
    certificates = _Certificates(make_config(security=misfit.server).security)
    certificates.load()

    for _ in range(3):
        pair = misfit.authority.issue_server(NAMES)
        replace(tmp_path / "server.key", pair.key)
        assert certificates.load_if_changed() is None
        replace(tmp_path / "server.crt", pair.certificate)
        assert certificates.load_if_changed() is not None
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    replace(tmp_path / "server.key", misfit.authority.issue_server(NAMES).key)
    for _ in range(4):
        assert certificates.load_if_changed() is None
    complaints = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(complaints) == 1
    replace(tmp_path / "server.key", pair.key)
    assert certificates.load_if_changed() is not None


def replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.chmod(0o600)
    temporary.replace(path)


def test_certificate_is_changed_without_a_restart_and_without_a_lost_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Planted: the fetcher always answers that nothing has changed."""
    misfit = Misfit(tmp_path)
    security = ClientSecurity(**misfit.client)
    codes: list[grpc.StatusCode] = []
    stop = threading.Event()
    with (
        DoorServer(make_config(security=misfit.server)) as server,
        make_channel(server.address, security) as channel,
    ):
        first = serial_of_server(server.address)

        def keep_calling() -> None:
            while not stop.is_set():
                codes.append(call(channel, GET_CONFIG, b""))

        thread = threading.Thread(target=keep_calling)
        thread.start()
        try:
            seen = [first]
            for _ in range(3):
                write_pair(tmp_path, misfit.authority.issue_server(NAMES))
                seen.append(serial_of_server(server.address))
                with make_channel(server.address, security) as fresh:
                    assert call(fresh, GET_CONFIG, b"") is OK
            assert seen[-1] == serial_in(tmp_path / "server.crt")
            assert len(set(seen)) == 4
            (tmp_path / "server.crt").write_text("half a certificate")
            for _ in range(3):
                assert serial_of_server(server.address) == seen[-1], "the old one stays"
            write_pair(tmp_path, misfit.authority.issue_server(NAMES))
            assert serial_of_server(server.address) == serial_in(tmp_path / "server.crt")
        finally:
            stop.set()
            thread.join(10.0)

    assert set(codes) == {OK}
    complaints = [record for record in caplog.records if "is not used" in record.getMessage()]
    assert len(complaints) == 1
