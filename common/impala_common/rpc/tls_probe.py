"""Finds the reason of a failed TLS connection.

gRPC reports "failed to connect" for every reason. Called by clients after a failed attempt, at most
every few seconds; opens its own connections with Python's ssl and examines the answers. Takes at
most `PROBE_S`; never sends a token.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import time

from cryptography import x509

from impala_common.errors import ConfigError, TlsError
from impala_common.rpc.addresses import host_of, is_unix, port_of
from impala_common.rpc.certificate_facts import names_of
from impala_common.rpc.security import ClientSecurity, make_ssl_context

PROBE_S = 4.0
"""Longest a probe takes."""

_ANSWER_S = 0.5
_AGAIN_S = 1.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_SETTINGS = 4
# OpenSSL's error numbers of certificates (X509_V_ERR_...).
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_CA = (2, 7, 18, 19, 20, 21)
_WRONG_NAME = (62, 64)


def find_tls_error(address: str, security: ClientSecurity) -> TlsError | None:
    """Returns the TLS error that prevents the connection; None if the reason is another one.

    Args:
      address: HOST:PORT or unix:PATH.
      security: the client's settings.
    """
    deadline_s = time.monotonic() + PROBE_S
    try:
        if security.ca_file:
            return _probe_with_tls(address, security, deadline_s)
        return _probe_without_tls(address, deadline_s)
    except ConfigError as error:
        return TlsError(str(error))  # a file was replaced by one that cannot be used
    except (OSError, ValueError):  # no listener, no answer in time, no such name
        return None


def _probe_without_tls(address: str, deadline_s: float) -> TlsError | None:
    if is_unix(address) or _speaks_plaintext(address, deadline_s):
        return None
    if not _speaks_tls(address, deadline_s):
        return None
    return TlsError(
        f"the learner at {address} speaks TLS, but no --ca-file was given: pass --ca-file with "
        "the certificate of its CA"
    )


def _probe_with_tls(address: str, security: ClientSecurity, deadline_s: float) -> TlsError | None:
    context = make_ssl_context(security)
    name = security.server_name or host_of(address)
    try:
        for pause_s in (0.0, _AGAIN_S):  # twice: a learner that is ending also closes connections
            time.sleep(pause_s)
            with (
                _connect(address, deadline_s) as raw,
                context.wrap_socket(raw, server_hostname=name) as connection,
            ):
                if not _is_sent_away(connection):
                    return None
        return _explain_refusal(address, security)
    except ssl.SSLCertVerificationError as error:
        return TlsError(_explain(error, address, name, security, deadline_s))
    except (ssl.SSLError, ConnectionResetError) as error:
        if "ALERT" in str(getattr(error, "reason", "")):  # TLS 1.2, in the handshake itself
            return _explain_refusal(address, security)
        if not _speaks_plaintext(address, deadline_s):
            return None
        return TlsError(
            f"the server at {address} does not speak TLS, but --ca-file was given: start the "
            "learner with --tls-cert and --tls-key, or leave out --ca-file"
        )


def _is_sent_away(connection: ssl.SSLSocket) -> bool:
    """Returns whether the server closes the connection before its first frame: a refusal.

    In TLS 1.3 a server verifies the client's certificate after the client's handshake; gRPC's
    server then closes the connection, and the alert with the reason is lost.
    """
    connection.settimeout(_ANSWER_S)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except (ssl.SSLError, ConnectionResetError):
        return True


def _explain_refusal(address: str, security: ClientSecurity) -> TlsError:
    if not security.client_cert:
        return TlsError(
            f"the learner at {address} demands a client certificate: pass --client-cert and "
            "--client-key"
        )
    return TlsError(
        f"the learner at {address} refuses the client certificate {security.client_cert}: it must "
        "come from the learner's --tls-client-ca and be valid now"
    )


def _explain(
    error: ssl.SSLCertVerificationError,
    address: str,
    name: str,
    security: ClientSecurity,
    deadline_s: float,
) -> str:
    """Returns the error of the server's certificate, with advice."""
    certificate = _fetch_certificate(address, name, deadline_s)
    start = f"the certificate of the learner at {address}"
    match error.verify_code:
        case code if code == _EXPIRED:
            when = f" on {_day(certificate.not_valid_after_utc)}" if certificate else ""
            return f"{start} expired{when}: give the learner a new one (it reads it by itself)"
        case code if code == _NOT_YET_VALID:
            when = f" before {_day(certificate.not_valid_before_utc)}" if certificate else ""
            return f"{start} is not yet valid{when}: are the clocks of both machines right?"
        case code if code in _UNKNOWN_CA:
            issuer = (
                f" (it was issued by {certificate.issuer.rfc4514_string()})" if certificate else ""
            )
            return (
                f"{start} does not come from the CA in {security.ca_file}{issuer}: "
                "pass --ca-file with the CA that issued it"
            )
        case code if code in _WRONG_NAME:
            listed = ", ".join(names_of(certificate)) if certificate else ""
            names = f"; it is for {listed}" if listed else ""
            return (
                f"{start} is not for the name {name}{names}: use one of its names in --server, "
                "pass --server-name, or make a certificate for this name"
            )
    return f"{start} cannot be trusted: {error.verify_message}"


def _fetch_certificate(address: str, name: str, deadline_s: float) -> x509.Certificate | None:
    """Returns the server's certificate, unverified, only to describe its content."""
    try:
        with (
            _connect(address, deadline_s) as raw,
            _unverified().wrap_socket(raw, server_hostname=name) as connection,
        ):
            found = connection.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found) if found else None
    except (OSError, ValueError):
        return None


def _speaks_tls(address: str, deadline_s: float) -> bool:
    try:
        with _connect(address, deadline_s) as raw, _unverified().wrap_socket(raw):
            return True
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason or "")  # only a TLS server sends one
    except ConnectionResetError:
        return False


def _speaks_plaintext(address: str, deadline_s: float) -> bool:
    """Returns whether the server answers HTTP/2 without TLS, as gRPC servers do."""
    with (
        contextlib.suppress(ConnectionResetError, TimeoutError),
        _connect(address, deadline_s) as raw,
    ):
        raw.sendall(_PREFACE)
        head = b""
        while len(head) < 9 and (more := raw.recv(9 - len(head))):
            head += more
        return len(head) == 9 and head[3] == _HTTP2_SETTINGS
    return False


def _connect(address: str, deadline_s: float) -> socket.socket:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0.05:
        raise TimeoutError("the probe took too long")
    if is_unix(address):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(left_s)
        connection.connect(address.removeprefix("unix:"))
        return connection
    connection = socket.create_connection((host_of(address), port_of(address)), left_s / 2)
    connection.settimeout(max(0.1, (deadline_s - time.monotonic()) / 2))
    return connection


def _unverified() -> ssl.SSLContext:
    """Returns a context that verifies nothing; no data is ever sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _day(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")
