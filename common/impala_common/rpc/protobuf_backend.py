"""Chooses the protobuf implementation that parses incoming messages.

The C implementation (upb) is fast and limits nesting. The pure Python one, protobuf's silent
fallback, is slow and had a denial of service by nesting (CVE-2025-4565). Called by the front end
before it opens a port.
"""

from __future__ import annotations

from google.protobuf.internal import api_implementation

from impala_common.errors import ConfigError


def require_upb() -> None:
    """Raises ConfigError unless protobuf runs on upb."""
    backend = api_implementation.Type()
    if backend != "upb":
        raise ConfigError(
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION",
            backend,
            "unset, with protobuf installed from a wheel (upb)",
            "other implementations do not bound the nesting of what strangers send",
        )
