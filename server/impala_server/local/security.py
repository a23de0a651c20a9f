"""TLS and token settings that impala-train gives its own actors.

They run on the learner's machine and may read its files; their command lines get paths, never a
token. They connect over loopback, whichever address the learner listens on, and verify its
certificate by a name that is in it.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509

from impala_common.config import SecurityConfig
from impala_common.errors import ConfigError
from impala_common.rpc.addresses import host_of, is_unix, join_address, port_of
from impala_common.rpc.certificate_facts import names_of
from impala_common.rpc.security import ClientSecurity

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)


def local_address(address: str) -> str:
    """Returns the address at which processes of this machine reach a learner bound to `address`."""
    host = host_of(address)
    return join_address(_EVERYWHERE[host], port_of(address)) if host in _EVERYWHERE else address


def local_client_security(
    security: SecurityConfig, address: str, is_evaluator: bool = False
) -> ClientSecurity:
    """Returns what an actor or evaluator of this machine needs for a learner with these settings.

    Args:
      security: settings of the learner.
      address: of the learner.
      is_evaluator: whether it is for an evaluator, which may have a token of its own.

    Raises:
      ConfigError: a file is missing.
    """
    token_file = security.actor_token_file
    if is_evaluator and security.evaluator_token_file:
        token_file = security.evaluator_token_file
    if not security.tls_cert or is_unix(address):
        return ClientSecurity(token_file=token_file)
    is_mutual = bool(security.tls_client_ca)
    return ClientSecurity(
        token_file=token_file,
        ca_file=_find(security, "ca.crt", security.tls_ca),
        server_name=_choose_name(security.tls_cert),
        client_cert=_find(security, "client.crt") if is_mutual else "",
        client_key=_find(security, "client.key") if is_mutual else "",
    )


def _find(security: SecurityConfig, name: str, named: str = "") -> str:
    """Returns a file by its name beside the server's certificate, if none is named."""
    path = Path(named) if named else Path(security.tls_cert).parent / name
    if not os.path.isfile(path):  # Path.is_file() raises where a folder above is closed
        raise ConfigError(
            "tls_ca" if name == "ca.crt" else "tls_client_ca",
            named or str(security.tls_client_ca or ""),
            f"used with a file {path}",
            "actors of impala-train need it; impala-admin certs init makes it",
        )
    return str(path)


def _choose_name(path: str) -> str:
    """Returns a name in the certificate that is not a wildcard pattern."""
    try:
        names = names_of(x509.load_pem_x509_certificate(Path(path).read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigError("tls_cert", path, "a readable PEM certificate", str(error)) from None
    plain = [name for name in names if not name.startswith("*")]
    if not plain:
        raise ConfigError("tls_cert", path, "a certificate for a name", f"it is for {names}")
    return "localhost" if "localhost" in plain else plain[0]
