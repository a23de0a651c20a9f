"""The address of a policy server: its form, and whether a proxy stands before it.

gRPC takes proxies from environment variables; connections to this machine bypass them, for a
proxy elsewhere cannot reach it. Standard library only.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from impala_thin.errors import RefusedError

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?", re.ASCII)
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")


def require_address(text: str) -> None:
    """Raises RefusedError unless `text` is HOST:PORT or unix:PATH."""
    host, _, port = text.rpartition(":")
    is_number = port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16
    is_ipv6 = host[:1] == "[" and host[-1:] == "]" and _parse_ip(host) is not None
    is_path = re.fullmatch(r"unix:.+", text) and is_utf8(text)
    if is_path or (is_number and (is_ipv6 or _NAME.fullmatch(host))):
        return
    raise RefusedError(f"the server is {text!r} but must be HOST:PORT or unix:PATH")


def is_utf8(text: str) -> bool:
    """Returns whether `text` can be sent: other bytes of a command line become surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_here(address: str) -> bool:
    """Returns whether only this machine can reach `address`."""
    host = address.rpartition(":")[0]
    found = _parse_ip(host)
    return address.startswith("unix:") or host == "localhost" or bool(found and found.is_loopback)


def describe_proxy(address: str) -> str:
    """Returns " through the proxy HOST:PORT (VARIABLE)" where there may be one, else ""."""
    variable = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if variable is None or is_here(address):
        return ""
    proxy = urlsplit(os.environ[variable]).netloc.rpartition("@")[2] or "(not a URL)"
    return f" through the proxy {proxy} ({variable})"


def _parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
