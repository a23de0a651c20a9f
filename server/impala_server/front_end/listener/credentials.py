"""Opens a listener's port: plaintext on this machine, TLS where others can reach it.

Called once per listener by the front end, before its server starts. A new certificate needs no
restart: gRPC asks before each handshake, and changed files are read again. The old pair stays in
use while the files are unusable, which is logged once, at the second handshake that finds them so:
certificate and key are replaced one after the other, and between the two they do not fit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

import grpc

from impala_common.config import SecurityConfig, TrainConfig
from impala_common.errors import AddressInUseError, ConfigError
from impala_common.rpc.addresses import UNIX, is_local, is_unix, join_address
from impala_common.rpc.security import load_pair

_LOG = logging.getLogger(__name__)
MAX_SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket: the kernel's sun_path without its last 0."""
INSECURE_REMINDER_S = 60.0
"""Seconds between two warnings that the port is open to everyone."""

_Stamp = tuple[tuple[int, int, int], ...]


def bind(
    server: grpc.aio.Server,
    host: str,
    port: int,
    config: TrainConfig,
    unix_mode: int = 0o600,
) -> str:
    """Opens a port of `server` and returns its address: HOST:PORT or unix:PATH.

    Args:
      server: not started yet.
      host: address to listen on, or unix:PATH.
      port: 0 for any free one; ignored for a Unix socket.
      config: its section `security` names the certificate.
      unix_mode: file mode of a Unix socket.

    Raises:
      AddressInUseError: the port is taken.
      ConfigError: a file cannot be used, or no socket can be made there.
    """
    if is_unix(host):
        _require_socket_place(Path(host.removeprefix(UNIX)))
    credentials = make_server_credentials(host, config.security)
    address = join_address(host, port)
    # A socket must never be open to others, not even briefly.
    umask = os.umask(0o777 & ~unix_mode) if is_unix(host) else None
    try:
        bound = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise AddressInUseError(
            f"cannot listen on {address}: is another server on that port? Stop it, or pass "
            "another --port (0 for any free one)"
        ) from error
    finally:
        if umask is not None:
            os.umask(umask)
    return join_address(host, bound)


def _require_socket_place(path: Path) -> None:
    """Raises ConfigError where gRPC could not tell a bad place from a taken one."""
    size = len(os.fsencode(path))
    problem = f"it has {size}" if size > MAX_SOCKET_PATH_BYTES else ""
    if not problem and not os.path.isdir(path.parent):
        problem = f"there is no folder {path.parent}"
    elif not problem and not os.access(
        path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        problem = f"{path.parent} cannot be written to"
    if problem:
        rule = f"unix:PATH of at most {MAX_SOCKET_PATH_BYTES} bytes in a folder to write to"
        raise ConfigError("address", f"{UNIX}{path}", rule, problem)


def make_server_credentials(host: str, security: SecurityConfig) -> grpc.ServerCredentials | None:
    """Returns the TLS files of a listener on `host`; None for plaintext.

    Unix sockets need no TLS: their traffic stays in the kernel.
    """
    if is_unix(host):
        return grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
    if security.tls_cert:
        certificates = _Certificates(security)
        return grpc.dynamic_ssl_server_credentials(
            certificates.load(),
            certificates.load_if_changed,  # type: ignore[arg-type]  # None: unchanged
            require_client_authentication=bool(security.tls_client_ca),
        )
    if is_local(host) and (security.actor_token_file or security.admin_token_file):
        return grpc.local_server_credentials(grpc.LocalConnectionType.LOCAL_TCP)
    return None


async def remind_of_insecure_port(config: TrainConfig, address: str) -> None:
    """Warns each minute that everyone may connect to `address`; returns at once if not so.

    `TrainConfig.is_bound_insecurely` is the same for metrics.
    """
    while config.is_bound_insecurely:
        _LOG.warning(
            "INSECURE: anyone who can reach %s may read weights and inject data "
            "(--allow-insecure-public-bind-without-tls)",
            address,
        )
        await asyncio.sleep(INSECURE_REMINDER_S)


class _Certificates:
    """The files of one listener's TLS. `load_if_changed` is called by threads of gRPC's."""

    def __init__(self, security: SecurityConfig) -> None:
        self._security = security
        self._stamp: _Stamp = ()
        self._unusable: _Stamp = ()  # found once and not logged yet

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Returns the files' present content; ConfigError if it cannot be used."""
        self._stamp = self._look()
        return self._read()

    def load_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the files' new content; None if they have not changed or cannot be used."""
        stamp: _Stamp = ()
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return None
            configuration = self._read()
        except Exception as error:  # no error may reach gRPC's handshake
            if stamp == self._unusable:
                self._stamp = stamp  # remembered: each state of the files is logged once
                _LOG.error("the changed certificate is not used, the old one stays: %s", error)
            self._unusable = stamp
            return None
        self._stamp = stamp
        _LOG.warning("certificate %s was read again", self._security.tls_cert)
        return configuration

    def _look(self) -> _Stamp:
        stamps = []
        for path in self._paths():
            try:
                found = os.stat(path)
            except OSError:
                stamps.append((0, 0, 0))  # missing, perhaps between two renames: `_read` reports it
                continue
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return tuple(stamps)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        security = self._security
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(context, security.tls_cert, security.tls_key, "tls_cert", "tls_key")
        key, certificate, *authority = [_read_file(path) for path in self._paths()]
        if authority:
            try:
                context.load_verify_locations(cadata=authority[0].decode("ascii", "replace"))
            except (ssl.SSLError, ValueError):
                raise ConfigError(
                    "tls_client_ca", security.tls_client_ca, "a file of PEM certificates"
                ) from None
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], authority[0] if authority else None
        )

    def _paths(self) -> list[str]:
        security = self._security
        paths = [security.tls_key, security.tls_cert, security.tls_client_ca]
        return [path for path in paths if path]


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise ConfigError("certificate", path, "a readable file", str(error.strerror)) from None
