"""Addresses of policy servers: refused where they are none, and without a proxy on this machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from impala_thin import cli
from impala_thin.errors import RefusedError
from impala_thin.hello import ClientSettings
from impala_thin.server_address import describe_proxy

NO_PROXY = ("grpc.enable_http_proxy", 0)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The command sets handlers of signals; those of the tests come back."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "server", ["http://x:1", "::1:50052", "localhost", "x:0", "x:99999", "", "[x]:1", "a b:1"]
)
def test_address_that_is_none_is_refused_at_once(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before: the client waited for it for ever."""
    with pytest.raises(RefusedError, match="HOST:PORT or unix:PATH"):
        ClientSettings(server=server)

    assert cli.run(["--server", server, "--env", "CartPole-v1"]) == 78
    assert capsys.readouterr().err.startswith("error: the server is ")


@pytest.mark.parametrize(
    ("server", "is_direct"),
    [
        ("127.0.0.1:1", True),
        ("127.1.2.3:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/tmp/x", True),
        ("learner:1", False),
        ("192.0.2.1:1", False),
    ],
)
def test_proxy_is_never_used_on_this_machine_and_named_elsewhere(
    server: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: with http_proxy set, a client waited for a server of its own machine for ever."""
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy.example:3128")

    assert (NO_PROXY in ClientSettings(server=server).options()) == is_direct
    expected = "" if is_direct else " through the proxy proxy.example:3128 (http_proxy)"
    assert describe_proxy(server) == expected


@pytest.mark.parametrize("kwargs", ["{", "3", '"text"'])
def test_arguments_that_are_no_object_are_refused(
    kwargs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--server", "x:1", "--env", "CartPole-v1", "--env-kwargs", kwargs]

    assert cli.run(options) == 78
    assert "--env-kwargs" in capsys.readouterr().err


def test_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(RefusedError, match=r"ca_file is '/none' but must be a readable file"):
        ClientSettings(server="x:1", ca_file="/none").credentials()
