"""Proxies of the environment: never for local addresses, elsewhere named without the password."""

from __future__ import annotations

import pytest

from impala_common.rpc.proxies import describe_proxy, proxy_options

NAMES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/s"]
)
def test_local_address_uses_no_proxy(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")

    assert proxy_options(address) == [("grpc.enable_http_proxy", 0)]
    assert describe_proxy(address) == ""


@pytest.mark.parametrize("name", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_proxy_of_another_address_is_named_without_the_password(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://user:secret@proxy.example.org:3128")

    assert proxy_options("learner.example.org:50051") == []
    text = describe_proxy("learner.example.org:50051")
    assert text == f" through the proxy proxy.example.org:3128 ({name})"


@pytest.mark.parametrize("entry", ["learner.example.org", ".example.org", "x, example.org"])
def test_excepted_host_has_no_proxy(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", entry)

    assert describe_proxy("learner.example.org:50051") == ""


def test_excepted_network_has_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_grpc_proxy", "10.0.0.0/8")

    assert describe_proxy("10.2.3.4:50051") == ""
    assert describe_proxy("11.2.3.4:50051") != ""
