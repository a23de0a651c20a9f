"""TLS, tokens and scopes through real sockets: accepted and refused calls, and their errors.

"Planted" in a docstring names a fault that was put into a copy of the code to see the test fail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from listener_kit import DoorServer, Method, all_methods, call, security_of
from raw_peer import Peer
from running_server import TINY, RunningServer, make_config

from impala_actor.acting.learner_client import LearnerClient
from impala_actor.admin.certs_command import make_certificates
from impala_common.errors import (
    ImpalaError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from impala_common.rpc.channel import make_channel
from impala_common.rpc.security import ClientSecurity
from impala_common.rpc.tokens import make_token, read_token
from impala_common.run import metrics
from impala_server.front_end.listener import credentials
from impala_server.front_end.listener.auth_interceptor import AuthInterceptor, make_interceptor

METHODS = all_methods()
IDENTITIES = ("none", "wrong", "actor", "evaluator", "admin")
GARBAGE = b"\xff\xff\xff\xff\x0f garbage"
GET_CONFIG = next(method for method in METHODS if method.name.endswith("LearnerService/GetConfig"))
OK = grpc.StatusCode.OK
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
MAX_DIAGNOSIS_S = 5.0
COUNTING = TINY + "Counting-v0"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("security") / "certs"
    make_certificates(folder)
    (folder / "wrong.token").write_text(make_token())
    (folder / "wrong.token").chmod(0o600)
    return folder


def security_as(identity: str, files: Path, tls: bool) -> ClientSecurity:
    token = "" if identity == "none" else str(files / f"{identity}.token")
    return ClientSecurity(ca_file=str(files / "ca.crt") if tls else "", token_file=token)


def expected(method: str, identity: str) -> grpc.StatusCode:
    """Returns what docs/security.md promises; not by the code's own table."""
    if method in ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"):
        return OK
    if identity in ("none", "wrong"):
        return UNAUTHENTICATED
    if method == GET_CONFIG.name and identity == "evaluator":
        return OK
    scopes = {
        "LearnerService": "actor",
        "EvaluationService": "evaluator",
        "PolicyService": "actor",  # PolicyAdminService: admin
    }
    needed = scopes.get(method.rpartition("/")[0].removeprefix("/impala_rl.v1."), "admin")
    return OK if identity == needed else PERMISSION_DENIED


# -- tokens and scopes -----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["loopback", "tls"])
def doors(request: pytest.FixtureRequest, files: Path) -> Iterator[tuple[DoorServer, bool]]:
    tls = request.param == "tls"
    with DoorServer(make_config(security=security_of(files, tls=tls))) as server:
        yield server, tls


@pytest.fixture(scope="module")
def channels(doors: tuple[DoorServer, bool], files: Path) -> Iterator[dict[str, grpc.Channel]]:
    server, tls = doors
    made = {
        name: make_channel(server.address, security_as(name, files, tls)) for name in IDENTITIES
    }
    yield made
    for channel in made.values():
        channel.close()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_is_open_to_its_scope_only_and_parses_nothing_for_others(
    method: Method, doors: tuple[DoorServer, bool], channels: dict[str, grpc.Channel]
) -> None:
    """Each method of each service in the descriptors, with four identities, bytes being garbage.

    Planted: the scope not compared; the method's own handler's deserialiser kept by the one that
    refuses; a method of the learner made public.
    """
    server, _ = doors
    for identity in IDENTITIES:
        server.parsed.clear()
        server.reached.clear()

        code = call(channels[identity], method, GARBAGE)

        assert code is expected(method.name, identity), identity
        if code is OK:
            assert server.reached == [method.name]
        else:
            assert server.parsed == []
            assert server.reached == []


def test_refused_calls_are_counted_by_kind(
    doors: tuple[DoorServer, bool], channels: dict[str, grpc.Channel]
) -> None:
    server, _ = doors
    before = dict(server.interceptor.failures)

    for identity in IDENTITIES:
        call(channels[identity], GET_CONFIG, b"")

    counted = {kind: count - before[kind] for kind, count in server.interceptor.failures.items()}
    assert counted == {"no_token": 1, "wrong_token": 1, "wrong_scope": 1}


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer {token}", OK),
        ("bearer {token}", OK),
        ("Bearer  {token}", UNAUTHENTICATED),
        ("{token}", UNAUTHENTICATED),
        ("Basic {token}", UNAUTHENTICATED),
        ("Bearer {token}{token}", UNAUTHENTICATED),
        ("Bearer " + 2000 * "a", UNAUTHENTICATED),
        ("Bearer ", UNAUTHENTICATED),
        ("", UNAUTHENTICATED),
    ],
)
def test_header_that_is_not_quite_right_does_not_open(
    files: Path, header: str, code: grpc.StatusCode
) -> None:
    token = read_token("x", str(files / "actor.token"))
    metadata = (("authorization", header.format(token=token)),)
    with (
        DoorServer(make_config(security=security_of(files, tls=False))) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert call(channel, GET_CONFIG, b"", metadata) is code
        assert call(channel, GET_CONFIG, b"", metadata * 2) is UNAUTHENTICATED, "sent twice"


@pytest.mark.parametrize("name", ["/impala_rl.v1.LearnerService/Nothing", "/a.B/C"])
def test_unknown_method_says_nothing_to_strangers(files: Path, name: str) -> None:
    method = Method(name, False, False)
    with DoorServer(make_config(security=security_of(files, tls=False))) as server:
        codes = {}
        for identity in IDENTITIES:
            with make_channel(server.address, security_as(identity, files, False)) as channel:
                codes[identity] = call(channel, method, GARBAGE)

    unimplemented = grpc.StatusCode.UNIMPLEMENTED
    assert codes == {
        "none": UNAUTHENTICATED,
        "wrong": UNAUTHENTICATED,
        "actor": unimplemented,
        "evaluator": unimplemented,
        "admin": unimplemented,
    }


def test_without_token_files_all_is_open_on_loopback() -> None:
    with DoorServer(make_config()) as server, make_channel(server.address) as channel:
        codes = {call(channel, method, b"") for method in METHODS}
        unknown = call(channel, Method("/a.B/C", False, False), b"")

    assert codes == {OK}
    assert unknown is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("host", "tokens", "is_insecure", "is_open"),
    [
        ("127.0.0.1", (), False, {"actor", "evaluator", "admin"}),
        ("unix:/x", (), False, {"actor", "evaluator", "admin"}),
        ("127.0.0.1", ("actor",), False, {"admin"}),
        ("127.0.0.1", ("evaluator",), False, {"actor", "admin"}),
        ("127.0.0.1", ("admin",), False, {"actor", "evaluator"}),
        ("0.0.0.0", ("actor",), False, set()),
        ("0.0.0.0", (), True, {"actor", "evaluator"}),
        ("0.0.0.0", ("actor",), True, set()),
        ("0.0.0.0", ("evaluator",), True, {"actor"}),
    ],
)
def test_scope_without_a_token_is_open_where_nobody_else_can_come(
    files: Path, host: str, tokens: tuple[str, ...], is_insecure: bool, is_open: set[str]
) -> None:
    """Planted: the escape flag opens administration as well."""
    settings = {f"{name}_token_file": str(files / f"{name}.token") for name in tokens}
    transport = {"allow_insecure_public_bind_without_tls": is_insecure}
    config = make_config(transport=transport, security=settings)

    interceptor = make_interceptor(config, host)

    assert {scope.value for scope in interceptor._open_scopes} == is_open


@pytest.mark.parametrize("has_own", [True, False])
def test_evaluators_have_a_scope_of_their_own_once_they_have_a_token(
    files: Path, has_own: bool
) -> None:
    """Before: with the token of actors anybody could say which checkpoint is the best."""
    security = security_of(files, tls=False)
    if not has_own:
        del security["evaluator_token_file"]
    report = next(method for method in METHODS if method.name.endswith("/ReportEvaluation"))
    register = next(method for method in METHODS if method.name.endswith("/Register"))
    codes = {}
    with DoorServer(make_config(security=security)) as server:
        for identity in ("actor", "evaluator"):
            with make_channel(server.address, security_as(identity, files, False)) as channel:
                codes[identity] = call(channel, report, b""), call(channel, register, b"")

    assert codes == {
        "actor": (PERMISSION_DENIED, OK) if has_own else (OK, OK),
        "evaluator": (OK, PERMISSION_DENIED) if has_own else (UNAUTHENTICATED, UNAUTHENTICATED),
    }


def test_refused_calls_fill_no_log(caplog: pytest.LogCaptureFixture, files: Path) -> None:
    """Seen to fail without the interval."""
    now_s = 100.0
    interceptor = AuthInterceptor(
        make_interceptor(make_config(security=security_of(files, tls=False)))._book,
        clock=lambda: now_s,
    )
    forged = "/a\nERROR forged\x1b[2J" + 5000 * "x"

    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            interceptor._log("no_token", forged, "ipv4:10.0.0.9:1")
        now_s += 11.0
        interceptor._log("no_token", forged, "ipv4:10.0.0.9:1")

    assert len(caplog.records) == 2
    assert "999 more" in caplog.text
    assert "\x1b" not in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert all(len(record.getMessage()) < 400 for record in caplog.records)


def test_real_learner_never_parses_what_strangers_send(tmp_path: Path, files: Path) -> None:
    config = make_config(security=security_of(files, tls=False))
    with RunningServer(tmp_path, config) as server:
        codes = {}
        for identity in IDENTITIES:
            with make_channel(server.address, security_as(identity, files, False)) as channel:
                codes[identity] = call(channel, GET_CONFIG, GARBAGE)

    assert [codes[name] for name in ("none", "wrong", "admin")] == [
        UNAUTHENTICATED,
        UNAUTHENTICATED,
        PERMISSION_DENIED,
    ]
    assert codes["actor"] not in (OK, UNAUTHENTICATED, PERMISSION_DENIED), "parsed, and found bad"


# -- whole runs ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["token", "tls", "tls+token", "mtls+token", "unix+token"])
def test_actor_trains_through(how: str, tmp_path: Path, files: Path) -> None:
    tls, tokens, mtls = "tls" in how, "token" in how, "mtls" in how
    client = ClientSecurity(
        ca_file=str(files / "ca.crt") if tls else "",
        token_file=str(files / "actor.token") if tokens else "",
        client_cert=str(files / "client.crt") if mtls else "",
        client_key=str(files / "client.key") if mtls else "",
    )
    transport = {"host": f"unix:{tmp_path}/learner.sock"} if "unix" in how else {}
    config = make_config(
        job={"total_steps": 600},
        transport=transport,
        security=security_of(files, tls=tls, tokens=tokens, mtls=mtls),
    )
    with RunningServer(tmp_path / "run", config) as server:
        server.run_actor(COUNTING, security=client)
        status = server.wait_finished()

    assert status[metrics.STEPS] >= 600


@pytest.mark.parametrize(
    ("identity", "kind", "message"),
    [
        ("none", UnauthenticatedError, "none was sent: pass --token-file"),
        ("wrong", UnauthenticatedError, "does not know this token"),
        ("admin", PermissionDeniedError, "has the admin scope; .*GetConfig is open to the actor"),
    ],
)
def test_actor_with_a_wrong_token_is_told_and_does_not_wait(
    tmp_path: Path, files: Path, identity: str, kind: type[ImpalaError], message: str
) -> None:
    config = make_config(security=security_of(files, tls=True))
    with RunningServer(tmp_path, config) as server:
        client = LearnerClient(server.address, "a", security=security_as(identity, files, True))
        with pytest.raises(kind, match=message) as caught:
            client.get_defaults()
        client.close()

    assert read_token("x", str(files / "actor.token")) not in str(caught.value)


# -- other things ----------------------------------------------------------------------------


def test_insecure_port_is_complained_of_each_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(credentials.asyncio, "sleep", sleep)
    transport = {"host": "0.0.0.0", "allow_insecure_public_bind_without_tls": True}
    coroutine = credentials.remind_of_insecure_port(make_config(transport=transport), "0.0.0.0:7")

    with pytest.raises(asyncio.CancelledError), caplog.at_level(logging.WARNING):
        asyncio.run(coroutine)

    assert waits == [60.0] * 3
    assert caplog.text.count("INSECURE: anyone who can reach 0.0.0.0:7 ") == 3


def test_port_that_is_safe_is_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(credentials.remind_of_insecure_port(make_config(), "127.0.0.1:7"))

    assert caplog.text == ""


def test_unix_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    config = make_config(transport={"host": f"unix:{tmp_path}/socket"})
    with DoorServer(config) as server, make_channel(server.address) as channel:
        mode = (tmp_path / "socket").stat().st_mode & 0o777
        code = call(channel, GET_CONFIG, b"")

    assert (mode, code) == (0o600, OK)


def test_peer_without_tls_still_speaks_to_a_learner_without(tmp_path: Path) -> None:
    """Today's behaviour on loopback: nothing is asked for."""
    with RunningServer(tmp_path) as server:
        peer = Peer(server.address)
        peer.register()
        peer.close()
