"""Converts errors of this project to gRPC status and back: one table.

On the wire an error is google.rpc.Status with one ErrorInfo{reason, domain}.
The client rebuilds the class from the reason, never from the text.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from impala_common import errors

DOMAIN = "impala_rl"
_LOG = logging.getLogger(__name__)


class WireError(NamedTuple):
    """Wire form of one error, and whether the same call may be repeated."""

    code: grpc.StatusCode
    is_retryable: bool


_TABLE: dict[type[errors.ImpalaError], WireError] = {
    errors.SpecMismatchError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.ModelError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.ProtocolMismatchError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.ConfigError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.UnsupportedSpaceError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.InvalidRequestError: WireError(grpc.StatusCode.INVALID_ARGUMENT, False),
    errors.DamagedRequestError: WireError(grpc.StatusCode.INVALID_ARGUMENT, True),
    errors.InvalidUnrollError: WireError(grpc.StatusCode.INVALID_ARGUMENT, False),
    errors.UnauthenticatedError: WireError(grpc.StatusCode.UNAUTHENTICATED, False),
    errors.PermissionDeniedError: WireError(grpc.StatusCode.PERMISSION_DENIED, False),
    errors.StaleSessionError: WireError(grpc.StatusCode.ABORTED, False),
    errors.RunMismatchError: WireError(grpc.StatusCode.ABORTED, False),
    errors.IllegalTransitionError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.CheckpointError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.CheckpointWriteError: WireError(grpc.StatusCode.RESOURCE_EXHAUSTED, False),
    errors.NotFoundError: WireError(grpc.StatusCode.NOT_FOUND, False),
    errors.AlreadyExistsError: WireError(grpc.StatusCode.ALREADY_EXISTS, False),
    errors.BannedError: WireError(grpc.StatusCode.PERMISSION_DENIED, False),
    errors.CapacityError: WireError(grpc.StatusCode.RESOURCE_EXHAUSTED, True),
    errors.RunFinishedError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.LearnerUnavailableError: WireError(grpc.StatusCode.UNAVAILABLE, True),
}
"""Errors that may cross the wire; all others become INTERNAL with an incident id."""

_BY_REASON = {kind.reason: kind for kind in _TABLE}


def wire_error_of(error: errors.ImpalaError) -> WireError | None:
    """Returns the wire form of `error`, or None if it must not cross the wire."""
    return _TABLE.get(type(error))


def status_of(error: Exception) -> Any:  # Any: grpc.Status, untyped
    """Returns the gRPC status for an error.

    An error outside the table is a bug: its details are logged under an incident id, and the client
    gets only the id.
    """
    wire = wire_error_of(error) if isinstance(error, errors.ImpalaError) else None
    if wire is None or not isinstance(error, errors.ImpalaError):
        incident = secrets.token_hex(4)
        _LOG.error("incident %s", incident, exc_info=error)
        status = status_pb2.Status(code=code_pb2.INTERNAL, message=f"internal error {incident}")
        return rpc_status.to_status(status)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if isinstance(error, errors.SpecMismatchError):
        info.metadata["field"] = str(error.field)
        info.metadata["expected"] = str(error.expected)
        info.metadata["actual"] = str(error.actual)
    detail = any_pb2.Any()
    detail.Pack(info)
    code: int = wire.code.value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=str(error), details=[detail]))


def error_from(call_error: grpc.RpcError) -> errors.ImpalaError:
    """Returns the error of a failed call.

    Codes of gRPC itself (no connection, deadline, connection lost) become LearnerUnavailableError;
    an unknown reason becomes ImpalaError.
    """
    # gRPC's errors are also Calls, although its stubs exclude that.
    call: Any = call_error
    code: grpc.StatusCode | None = call.code() if hasattr(call, "code") else None
    text: str = (call.details() if hasattr(call, "details") else "") or str(call_error)
    status: Any = rpc_status.from_call(call) if hasattr(call, "trailing_metadata") else None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if not detail.Unpack(info) or info.domain != DOMAIN or info.reason not in _BY_REASON:
            continue
        kind = _BY_REASON[info.reason]
        if kind is errors.SpecMismatchError:
            facts = info.metadata
            return errors.SpecMismatchError(facts["field"], facts["expected"], facts["actual"])
        rebuilt = kind.__new__(kind)
        errors.ImpalaError.__init__(rebuilt, text)
        return rebuilt
    if code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    ):
        return errors.LearnerUnavailableError(text)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return errors.UnauthenticatedError(text)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return errors.PermissionDeniedError(text)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.ProtocolMismatchError(f"the server does not speak this protocol: {text}")
    return errors.ImpalaError(f"{code.name if code else 'unknown error'}: {text}")
