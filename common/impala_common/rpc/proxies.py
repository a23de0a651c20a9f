"""HTTP proxies that gRPC uses for an address; none for local addresses.

gRPC reads proxies from environment variables. Connections to loopback addresses and Unix sockets
bypass them: a proxy on another machine cannot reach these.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from impala_common.rpc.addresses import host_of, is_local

_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")


def proxy_options(address: str) -> list[tuple[str, int | str]]:
    """Returns channel options that disable proxies for local addresses."""
    return [("grpc.enable_http_proxy", 0)] if is_local(host_of(address)) else []


def describe_proxy(address: str) -> str:
    """Returns " through the proxy HOST:PORT (VARIABLE)" if gRPC uses a proxy, else "".

    User and password in the variable are left out.
    """
    host = host_of(address)
    if is_local(host):
        return ""
    found = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if found is None or _is_excepted(host):
        return ""
    proxy = urlsplit(os.environ[found]).netloc.rpartition("@")[2] or "(not a URL)"
    return f" through the proxy {proxy} ({found})"


def _is_excepted(host: str) -> bool:
    """Returns whether no_proxy lists `host`, its domain or its network."""
    text = next((os.environ[name] for name in _NO_PROXY_VARIABLES if os.environ.get(name)), "")
    return any(_covers(entry.strip(), host) for entry in text.split(",") if entry.strip())


def _covers(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.endswith(entry)
