"""Reads names and dates from certificates. Verifies nothing; knows no gRPC."""

from __future__ import annotations

from cryptography import x509


def names_of(certificate: x509.Certificate) -> list[str]:
    """Returns the DNS names and IP addresses in a certificate."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names = extension.value
    return [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]
