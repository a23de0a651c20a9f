"""Which versions of the protocol are taken: one rule for all services."""

from __future__ import annotations

from impala_common.errors import ProtocolMismatchError
from impala_common.rpc.limits import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION


def validate_protocol_version(version: int) -> None:
    """Raises ProtocolMismatchError, naming the side to upgrade, for an unknown version."""
    if OLDEST_PROTOCOL_VERSION <= version <= PROTOCOL_VERSION:
        return
    known = (
        f"{PROTOCOL_VERSION}"
        if OLDEST_PROTOCOL_VERSION == PROTOCOL_VERSION
        else f"{OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}"
    )
    older = "learner" if version > PROTOCOL_VERSION else "client"
    raise ProtocolMismatchError(
        f"protocol_version: expected {known}, got {version}; upgrade impala-rl on the {older}'s "
        "side, or install the same release on both sides"
    )
