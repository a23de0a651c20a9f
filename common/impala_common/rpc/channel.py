"""Opens client channels; all channel and server options, each with its reason.

Option names must be exact: gRPC silently ignores unknown ones.
"""

from __future__ import annotations

import grpc

from impala_common.rpc.limits import MAX_MESSAGE_BYTES
from impala_common.rpc.proxies import proxy_options
from impala_common.rpc.security import ClientSecurity

Options = list[tuple[str, int | str]]


def client_options() -> Options:
    """Returns the options of an actor's channel."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Detects a dead peer within 10 s: ping after 3.5 s of silence, wait 6 s, as on a slow link
        # the answer queues behind data. The second name of the timeout works in this gRPC; the
        # first is for versions that use it.
        ("grpc.keepalive_time_ms", 3_500),
        ("grpc.keepalive_timeout_ms", 6_000),
        ("grpc.http2.ping_timeout_ms", 6_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # The default backs off up to two minutes; a learner restarts in seconds.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # gRPC's own retry replays streams from their first message: never for unrolls.
        ("grpc.enable_retries", 0),
    ]


def server_options(max_connections: int = 0) -> Options:
    """Returns the options of the learner's server, which takes `max_connections`; 0: no limit."""
    limits: Options = [("grpc.max_allowed_incoming_connections", max_connections)]
    return [
        *(limits if max_connections else []),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # By default a second server on the port starts silently and gets half the actors.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", 64),
        # Clients ping every 3.5 s; by default the server would disconnect them for it.
        ("grpc.http2.min_ping_interval_without_data_ms", 3_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # As for clients: a lost actor's place is free within 10 s.
        ("grpc.keepalive_time_ms", 3_500),
        ("grpc.keepalive_timeout_ms", 6_000),
        ("grpc.http2.ping_timeout_ms", 6_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.server_handshake_timeout_ms", 10_000),
        # This project never uses gRPC's compression, so the server refuses it (decompression
        # bombs).
        ("grpc.per_message_decompression", 0),
        # Live actors always hold a stream; connections idle for 5 minutes are closed.
        ("grpc.max_connection_idle_ms", 300_000),
    ]


def make_channel(address: str, security: ClientSecurity | None = None) -> grpc.Channel:
    """Returns a channel to `address` (HOST:PORT or unix:PATH); connects when first used.

    Raises:
      ConfigError: `security` names a file that cannot be used.
    """
    security = security or ClientSecurity()
    credentials = security.make_credentials(address)
    options = client_options() + security.options() + proxy_options(address)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)
