"""Addresses: accepted forms, and errors for the others."""

from __future__ import annotations

import pytest

from impala_common.errors import ConfigError
from impala_common.rpc.addresses import is_address, require_host, require_server_address


@pytest.mark.parametrize(
    "text",
    ["localhost:1", "10.0.0.1:50051", "[::1]:50051", "a-b.example.org:65535", "unix:/tmp/s"],
)
def test_address_of_a_known_form_is_taken(text: str) -> None:
    assert is_address(text)
    require_server_address("--server", text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("::1:50051", "in brackets: [::1]:50051"),
        ("2001:db8::7:50051", "in brackets: [2001:db8::7]:50051"),
        ("http://localhost:50051", "leave out http://: localhost:50051"),
        ("grpcs://learner.example.org", "leave out grpcs://"),
        ("localhost", "the port is missing, such as localhost:50051"),
        ("::1", "the port is missing, such as [::1]:50051"),
        ("localhost:", ""),
        ("localhost:0", ""),
        ("localhost:70000", ""),
        ("localhost:\u0663", ""),
        ("[localhost]:50051", ""),
        ("two words:50051", ""),
        (":50051", ""),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_address_of_another_form_is_refused_with_the_form_that_is_meant(
    text: str, hint: str
) -> None:
    """The fault: any text taken for a host: gRPC then tried for ever to resolve it."""
    with pytest.raises(ConfigError) as caught:
        require_server_address("--server", text)

    assert str(caught.value).startswith(f"--server is {text!r} but must be HOST:PORT or unix:PATH")
    assert hint in str(caught.value)


@pytest.mark.parametrize("host", ["http://x", "a b", "", "x:50051"])
def test_host_of_another_form_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="host is"):
        require_host("host", host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::1]", "localhost", "unix:/tmp/s", "a.b-c"])
def test_host_of_a_known_form_is_taken(host: str) -> None:
    require_host("host", host)
