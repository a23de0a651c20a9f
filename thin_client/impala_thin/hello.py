"""ClientSettings: what a client says in its hello, and how it connects."""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
from pathlib import Path

import grpc

from impala_rl.v1 import policy_pb2
from impala_thin.environment import Environment
from impala_thin.errors import RefusedError
from impala_thin.server_address import is_here, is_utf8, require_address

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 64 << 20
"""Largest message that clients send or read, whatever a server says."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """Settings of one client; all have defaults but the server."""

    server: str
    """Address of the policy server, HOST:PORT or unix:PATH."""
    client_id: str = ""
    """Name of the client, unique at its server; empty: host, process and a random part."""
    ca_file: str = ""
    """CA that the server's certificate comes from (PEM); empty: no TLS."""
    token_file: str = ""
    """File of the token; empty: none is sent."""
    client_cert: str = ""
    """Certificate to show the server (PEM, mutual TLS); with `ca_file` and `client_key`."""
    client_key: str = ""
    """Its private key (PEM)."""
    server_name: str = ""
    """Name the server's certificate is for; empty: the host in `server`."""
    connect_timeout_s: float = 0.0
    """Seconds to try while the server cannot be reached; 0: for ever."""
    is_evaluation: bool = False
    """Only play: nothing is trained."""
    is_greedy: bool = False
    """Take the likeliest actions; evaluation only."""
    wants_logits: bool = False
    """Whether answers hold logits."""
    compresses: bool = True
    """Whether observations are compressed where that makes them smaller and zstandard is there."""

    def __post_init__(self) -> None:
        """Raises RefusedError for an address or a name that is none, or half a certificate."""
        require_address(self.server)
        for name in ("client_id", "server_name"):
            if not is_utf8(value := getattr(self, name)):
                raise RefusedError(f"{name} is {value!r} but must be UTF-8")
        if bool(self.client_cert) != bool(self.client_key):
            raise RefusedError("client_cert and client_key belong together: expected both or none")
        if self.client_cert and not self.ca_file:
            raise RefusedError("client_cert is for TLS: expected ca_file with it")

    def make_hello(self, environment: Environment, num_slots: int) -> policy_pb2.PlayRequest:
        """Returns the hello of this life of the client, for all its streams."""
        return policy_pb2.PlayRequest(
            hello=policy_pb2.PlayHello(
                client_id=self.client_id or make_client_id(),
                client_run_id=secrets.randbits(64),
                protocol_version=PROTOCOL_VERSION,
                environment=environment.spec,
                slot_count=num_slots,
                is_evaluation=self.is_evaluation,
                is_greedy=self.is_greedy,
                wants_logits=self.wants_logits,
            )
        )

    def options(self) -> list[tuple[str, int | str]]:
        """Returns the channel's options; gRPC ignores misspelt ones without a word."""
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # A dead server is noticed within 10 s; both names, as versions differ.
            ("grpc.keepalive_time_ms", 3_500),
            ("grpc.keepalive_timeout_ms", 6_000),
            ("grpc.http2.ping_timeout_ms", 6_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.enable_retries", 0),
        ]
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        if is_here(self.server):
            options.append(("grpc.enable_http_proxy", 0))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Returns TLS and token; None for a plain channel.

        Raises:
          RefusedError: a token would travel in the clear to another machine, or a file cannot be
            read.
        """
        transport = None
        if self.ca_file:
            pair = (
                (_read("client_key", self.client_key), _read("client_cert", self.client_cert))
                if self.client_cert
                else ()
            )
            transport = grpc.ssl_channel_credentials(_read("ca_file", self.ca_file), *pair)
        if not self.token_file:
            return transport
        if transport is None:
            if self.server.startswith("unix:"):
                transport = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
            elif is_here(self.server):
                transport = grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP)
            else:
                raise RefusedError(f"the token would travel to {self.server} in the clear: use TLS")
        token = _read("token_file", self.token_file).decode("ascii", "replace").strip()
        return grpc.composite_channel_credentials(
            transport, grpc.access_token_call_credentials(token)
        )


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RefusedError(
            f"{name} is {path!r} but must be a readable file: {error.strerror}"
        ) from None


def make_client_id() -> str:
    """Returns a unique name: host, process and a random part."""
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname())
    return f"{host[:32].strip('-') or 'client'}-{os.getpid()}-{secrets.token_hex(3)}"
