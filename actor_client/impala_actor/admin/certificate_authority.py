"""CertificateAuthority: makes development certificates: a CA, a server's, a client's.

Used by `impala-admin certs init` and by tests. Not a public key infrastructure: certificates cannot
be revoked and are not listed. Use your own infrastructure if you have one.
"""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from impala_common.errors import ConfigError

_SKEW = datetime.timedelta(days=1)  # clocks of other machines may be behind
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclasses.dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


class CertificateAuthority:
    """A CA whose key is in memory only, unless the caller writes it to a file."""

    def __init__(self, days: int = 365, name: str = "impala-rl development CA") -> None:
        """Makes the CA's key and certificate, valid from yesterday for `days` days."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._days = days
        subject = _name(name)
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            _builder(subject, subject, self._key.public_key(), now - _SKEW, self._end(now))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(is_ca=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pair(self) -> Pair:
        """The CA's certificate, which is public, and its key, which is secret."""
        return _pack(self._certificate, self._key)

    def issue_server(
        self,
        names: Sequence[str],
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
    ) -> Pair:
        """Returns a server's certificate for DNS names and IP addresses.

        Raises:
          ConfigError: one of them is neither.
        """
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        return self._issue(names[0], list(names), purpose, not_before, not_after)

    def issue_client(self, name: str) -> Pair:
        """Returns a client's certificate, for mutual TLS."""
        return self._issue(name, [name], ExtendedKeyUsageOID.CLIENT_AUTH, None, None)

    def _issue(
        self,
        common_name: str,
        names: list[str],
        purpose: x509.ObjectIdentifier,
        not_before: datetime.datetime | None,
        not_after: datetime.datetime | None,
    ) -> Pair:
        subjects = [_general_name(name) for name in names]
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        issuer, public = self._certificate.subject, key.public_key()
        start, end = not_before or now - _SKEW, not_after or self._end(now)
        authority = self._key.public_key()
        certificate = (
            _builder(_name(common_name), issuer, public, start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return _pack(certificate, key)

    def _end(self, now: datetime.datetime) -> datetime.datetime:
        return now + datetime.timedelta(days=self._days)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if len(name) > 253 or not _DNS_NAME.fullmatch(name):
        raise ConfigError("--name", name, "a DNS name or an IP address, without a port")
    return x509.DNSName(name)


def _usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pack(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(encoding, form, serialization.NoEncryption())
    return Pair(certificate.public_bytes(encoding), secret)
