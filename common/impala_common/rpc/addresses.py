"""Parses addresses, and tells which are local to this machine.

Used by the rules of settings, by servers and by clients. Knows no gRPC. A name other than
`localhost` never counts as local: its address is configured elsewhere and may change.
"""

from __future__ import annotations

import ipaddress
import re

from impala_common.errors import ConfigError
from impala_common.process.utf8 import is_utf8

UNIX = "unix:"
"""Prefix of the address of a Unix socket."""

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?", re.ASCII)
_MAX_PORT = 65535


def is_unix(address: str) -> bool:
    """Returns whether `address` is a Unix socket: unix:PATH."""
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
    """Returns whether `text` has the form HOST:PORT or unix:PATH.

    HOST is a name, an IPv4 address, or an IPv6 address in brackets.
    """
    if is_unix(text):
        return len(text) > len(UNIX) and is_utf8(text)  # gRPC takes no other path
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT):
        return False
    if host.startswith("[") and host.endswith("]"):
        return _is_ipv6(host[1:-1])
    return _HOST.fullmatch(host) is not None


def require_server_address(name: str, text: str) -> None:
    """Raises ConfigError, with a suggestion, unless `text` is an address.

    Args:
      name: of the option or setting, for the message.
      text: its value; a port of 0 is refused.
    """
    if is_address(text) and (is_unix(text) or port_of(text) > 0):
        return
    raise ConfigError(name, text, "HOST:PORT or unix:PATH", _hint_at(text))


def require_host(name: str, host: str) -> None:
    """Raises ConfigError unless `host` is a name, an IPv4 or IPv6 address, or unix:PATH."""
    if is_address(host) if is_unix(host) else _is_ipv6(host.strip("[]")) or _HOST.fullmatch(host):
        return
    rule = "a host name, an IP address or unix:PATH"
    raise ConfigError(name, host, rule, _hint_at(host) if host else "")


def _hint_at(text: str) -> str:
    if not is_utf8(text):
        return "its path must be UTF-8"
    scheme, found, rest = text.partition("://")
    if found:
        return f"leave out {scheme}://" + (f": {rest}" if is_address(rest) else "")
    host, _, port = text.rpartition(":")
    if _is_ipv6(host) and port.isdecimal():
        return f"an IPv6 address stands in brackets: [{host}]:{port}"
    is_bracketed = text.startswith("[") == text.endswith("]")
    if (_is_ipv6(text.strip("[]")) and is_bracketed) or _HOST.fullmatch(text):
        return f"the port is missing, such as {join_address(text, 50051)}"
    return ""


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ipaddress.ip_address(text), ipaddress.IPv6Address)
    except ValueError:
        return False
