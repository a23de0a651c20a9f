"""Connection: address, TLS and token of the server that is tried, and channels to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import grpc

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Connection:
    """How the server is reached; what is empty is not used."""

    address: str
    """HOST:PORT or unix:PATH."""
    ca_file: str = ""
    """CA that the server's certificate comes from (PEM)."""
    token_file: str = ""
    """File of the token."""
    client_cert: str = ""
    """Certificate to show (PEM, mutual TLS)."""
    client_key: str = ""
    """Its private key (PEM)."""
    server_name: str = ""
    """Name the server's certificate is for, if not the host of `address`."""

    def open(self, *, with_token: bool = True) -> grpc.Channel:
        """Returns a channel.

        Args:
          with_token: False: no token is sent, though there may be one.

        Raises:
          OSError: a file cannot be read.
          ValueError: a token would travel in the clear to another machine.
        """
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        credentials = self._credentials(with_token)
        if credentials is None:
            return grpc.insecure_channel(self.address, options)
        return grpc.secure_channel(self.address, credentials, options)

    def _credentials(self, with_token: bool) -> grpc.ChannelCredentials | None:
        transport = None
        if self.ca_file:
            transport = grpc.ssl_channel_credentials(
                Path(self.ca_file).read_bytes(),
                Path(self.client_key).read_bytes() if self.client_key else None,
                Path(self.client_cert).read_bytes() if self.client_cert else None,
            )
        if not (self.token_file and with_token):
            return transport
        if transport is None:
            transport = self._local_credentials()
        token = Path(self.token_file).read_text(encoding="utf-8").strip()
        return grpc.composite_channel_credentials(
            transport, grpc.access_token_call_credentials(token)
        )

    def _local_credentials(self) -> grpc.ChannelCredentials:
        if self.address.startswith("unix:"):
            return grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
        if self.address.rpartition(":")[0] not in _LOOPBACK:
            raise ValueError(
                f"the token would travel to {self.address} in the clear: use --ca-file"
            )
        return grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP)
