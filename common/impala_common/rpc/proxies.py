"""HTTP proxies: which one gRPC would go through to an address, and for which there is none.

gRPC takes proxies from the environment. A loopback address or Unix socket is never reached through
one: the proxy is another machine, or does not know this machine's ports.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from impala_common.rpc.addresses import host_of, is_local

_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")


def proxy_options(address: str) -> list[tuple[str, int | str]]:
    """Returns the channel options that keep proxies away from local addresses."""
    return [("grpc.enable_http_proxy", 0)] if is_local(host_of(address)) else []


def describe_proxy(address: str) -> str:
    """Returns " through the proxy HOST:PORT (VARIABLE)" where gRPC uses one; else nothing.

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
    """Returns whether the environment names `host`, a domain or a network of it, as no proxy's."""
    text = next((os.environ[name] for name in _NO_PROXY_VARIABLES if os.environ.get(name)), "")
    return any(_covers(entry.strip(), host) for entry in text.split(",") if entry.strip())


def _covers(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.endswith(entry)
