"""ClientSecurity: a client's TLS and token settings.

Used by actors and by administration, once per connection. Imports grpc only to open a channel, so
that command lines can use it. With a CA the channel is TLS; without one it is plaintext, and a
token is then sent only over loopback or a Unix socket, as gRPC itself requires.
"""

from __future__ import annotations

import dataclasses
import ssl
from typing import TYPE_CHECKING

from impala_common.errors import ConfigError
from impala_common.process.utf8 import is_utf8
from impala_common.rpc.addresses import host_of, is_local, is_unix
from impala_common.rpc.tokens import read_secret_file, read_token

if TYPE_CHECKING:
    import grpc


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientSecurity:
    """Files and names; empty strings for unused ones."""

    ca_file: str = ""
    """CA of the learner's certificate (PEM); empty: no TLS."""
    token_file: str = ""
    """File of the token to send, readable by its owner only; empty: none is sent."""
    client_cert: str = ""
    """Client certificate to show the learner (PEM, mutual TLS)."""
    client_key: str = ""
    """Its private key (PEM)."""
    server_name: str = ""
    """Name the learner's certificate is for; empty: the host of the address."""

    def __post_init__(self) -> None:
        """Checks that the settings are consistent."""
        if not is_utf8(self.server_name):
            raise ConfigError("--server-name", self.server_name, "a name in UTF-8")
        if bool(self.client_cert) != bool(self.client_key):
            missing = "--client-key" if self.client_cert else "--client-cert"
            raise ConfigError(
                missing, "", "given too", "a certificate and its key belong to each other"
            )
        for option, value in (
            ("--client-cert", self.client_cert),
            ("--server-name", self.server_name),
        ):
            if value and not self.ca_file:
                raise ConfigError(option, value, "left out without --ca-file", "it is for TLS only")

    def make_credentials(self, address: str) -> grpc.ChannelCredentials | None:
        """Returns the credentials for a channel to `address`; None for an insecure channel.

        Raises:
          ConfigError: a file cannot be used, or a token would be sent in plaintext.
        """
        transport = self._make_transport(address)
        if not self.token_file:
            return transport
        if transport is None:
            raise ConfigError(
                "--token-file",
                self.token_file,
                "used with --ca-file, or on this machine",
                f"the token would travel to {address} in the clear",
            )
        import grpc

        token = read_token("--token-file", self.token_file)
        return grpc.composite_channel_credentials(
            transport, grpc.access_token_call_credentials(token)
        )

    def _make_transport(self, address: str) -> grpc.ChannelCredentials | None:
        import grpc

        if self.ca_file:
            self.validate_files()
            return grpc.ssl_channel_credentials(
                root_certificates=_read("--ca-file", self.ca_file),
                private_key=self._read_key(),
                certificate_chain=(
                    _read("--client-cert", self.client_cert) if self.client_cert else None
                ),
            )
        if self.token_file and is_local(host_of(address)):
            kind = grpc.LocalConnectionType
            return grpc.local_channel_credentials(kind.UDS if is_unix(address) else kind.LOCAL_TCP)
        return None

    def options(self) -> list[tuple[str, int | str]]:
        """Returns the channel options for the credentials."""
        if not self.server_name:
            return []
        return [("grpc.ssl_target_name_override", self.server_name)]

    def validate_files(self) -> None:
        """Raises ConfigError for a file without a certificate, or a key that does not fit."""
        make_ssl_context(self)

    def _read_key(self) -> bytes | None:
        return read_secret_file("--client-key", self.client_key) if self.client_key else None


def make_ssl_context(security: ClientSecurity) -> ssl.SSLContext:
    """Returns an ssl context with the same files, to check them and a server.

    Raises:
      ConfigError: they cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    text = _read("--ca-file", security.ca_file).decode("ascii", "replace")
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ConfigError(
            "--ca-file", security.ca_file, "a file of PEM certificates", "there is none in it"
        ) from None
    if security.client_cert:
        load_pair(
            context, security.client_cert, security.client_key, "--client-cert", "--client-key"
        )
    return context


def load_pair(context: ssl.SSLContext, cert: str, key: str, cert_name: str, key_name: str) -> None:
    """Loads a certificate and its key; ConfigError, with the settings' names, if they are unfit."""
    read_secret_file(key_name, key)
    _read(cert_name, cert)
    try:
        # Without a password function OpenSSL would ask on the terminal, and wait.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ConfigError(
            cert_name,
            cert,
            f"a PEM certificate whose key is {key}, without a password",
            str(reason).replace("_", " ").lower(),
        ) from None


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise ConfigError(name, path, "a readable file", str(error.strerror)) from None
