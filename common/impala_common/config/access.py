"""Settings of access to a learner: TLS, tokens, administration.

The text under each field is its documentation, as in `impala_common.config.sections`.
"""

from __future__ import annotations

import dataclasses

from impala_common.config.checks import require
from impala_common.rpc.addresses import host_of, is_address, is_local


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecurityConfig:
    """TLS and tokens, as paths of files that `impala-admin certs init` makes."""

    tls_cert: str = ""
    """Server certificate file (PEM, with chain), reread when it changes; empty: no TLS."""
    tls_key: str = ""
    """Private key file of tls_cert (PEM), readable by its owner only."""
    tls_client_ca: str = ""
    """CA file for client certificates (mutual TLS); empty: none needed."""
    tls_ca: str = ""
    """CA file by which impala-train's actors verify the server; empty: ca.crt beside tls_cert."""
    actor_token_file: str = ""
    """Actors' token file, readable by its owner only; empty: none needed."""
    evaluator_token_file: str = ""
    """Evaluators' token file, readable by its owner only; empty: the actors'."""
    admin_token_file: str = ""
    """Administrators' token file, readable by its owner only; empty: none needed."""

    def __post_init__(self) -> None:
        """Checks the rules of this section; files are checked when they are used."""
        require(
            "tls_cert",
            self.tls_cert,
            bool(self.tls_key) or not self.tls_cert,
            "given with --tls-key",
            "a certificate is of no use without its key",
        )
        require(
            "tls_key",
            self.tls_key,
            bool(self.tls_cert) or not self.tls_key,
            "left out without --tls-cert",
            "a key is of no use without its certificate",
        )
        require(
            "tls_client_ca",
            self.tls_client_ca,
            bool(self.tls_cert) or not self.tls_client_ca,
            "left out without --tls-cert",
            "clients show certificates in TLS only",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdminConfig:
    """Administration of a running learner: impala-admin."""

    admin_address: str = "unix"
    """Where the admin service listens: unix (the owner's socket in the run's folder), unix:PATH, a
    loopback HOST:PORT (0: any port), or none."""

    def __post_init__(self) -> None:
        """Checks the rules of this section."""
        require(
            "admin_address",
            self.admin_address,
            self.admin_address in ("unix", "none")
            or (is_address(self.admin_address) and is_local(host_of(self.admin_address))),
            "unix, unix:PATH, HOST:PORT with a loopback address, or none",
            "administration from other machines goes through SSH, or a shell in the container",
        )
