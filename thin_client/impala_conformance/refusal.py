"""Refusal: how a call ended that was not served, with the reason that its status carries."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "impala_rl"
DETAILS_KEY = "grpc-status-details-bin"


class Refusal(NamedTuple):
    """The end of a call.

    Attributes:
      code: gRPC code by name.
      reason: of the ErrorInfo of this protocol's domain; empty: there is none.
      text: for people.
      metadata: of the ErrorInfo.
    """

    code: str
    reason: str
    text: str
    metadata: dict[str, str]

    def __str__(self) -> str:
        """Returns code, reason and text."""
        return f"{self.code} {self.reason or '(no reason)'}: {self.text[:200]}"


def read_refusal(error: Any) -> Refusal:  # Any: grpc.RpcError that is a grpc.Call
    """Returns the end of a call that raised."""
    if not isinstance(error, grpc.Call):
        return Refusal("UNKNOWN", "", str(error), {})
    info = _find_info(error)
    code, text = error.code(), error.details() or ""
    return Refusal(code.name, info.reason, text, dict(info.metadata))


def _find_info(call: grpc.Call) -> error_details_pb2.ErrorInfo:
    for key, value in call.trailing_metadata() or ():
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            details = status_pb2.Status.FromString(value).details
            for detail in details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return info
        except DecodeError:
            break
    return error_details_pb2.ErrorInfo()
