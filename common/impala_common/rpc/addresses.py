"""Parses addresses, and tells which are local to this machine.

Used by the rules of settings, by whoever listens and by whoever connects. Knows
no gRPC. A name other than `localhost` is never taken for local: what it stands
for is decided elsewhere, and may change.
"""

from __future__ import annotations

import ipaddress

UNIX = "unix:"
"""What the address of a Unix socket begins with."""


def is_unix(address: str) -> bool:
    """Returns whether `address` is that of a Unix socket: unix:PATH."""
    return address.startswith(UNIX)


def is_local(host: str) -> bool:
    """Returns whether only this machine can reach `host` (a host without port, or unix:PATH)."""
    if is_unix(host) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """Returns the host of HOST:PORT without brackets; unix:PATH as it is."""
    return address if is_unix(address) else address.rpartition(":")[0].strip("[]")


def port_of(address: str) -> int:
    """Returns the port of HOST:PORT; 0 for unix:PATH."""
    return 0 if is_unix(address) else int(address.rpartition(":")[2])


def join_address(host: str, port: int) -> str:
    """Returns HOST:PORT, with brackets where the host has colons; unix:PATH as it is."""
    if is_unix(host):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def is_address(text: str) -> bool:
    """Returns whether `text` has the form HOST:PORT or unix:PATH."""
    if is_unix(text):
        return len(text) > len(UNIX)
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and int(port) <= 65535
