"""Converts errors of this project to gRPC status and back: one table.

On the wire an error is google.rpc.Status with one ErrorInfo{reason, domain}.
The client rebuilds the class from the reason, never from the text.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from impala_common import errors

DOMAIN = "impala_rl"
_LOG = logging.getLogger(__name__)
_OF_NO_CONNECTION = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


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
    errors.CheckpointUnreadableError: WireError(grpc.StatusCode.DATA_LOSS, False),
    errors.NotFoundError: WireError(grpc.StatusCode.NOT_FOUND, False),
    errors.AlreadyExistsError: WireError(grpc.StatusCode.ALREADY_EXISTS, False),
    errors.BannedError: WireError(grpc.StatusCode.PERMISSION_DENIED, False),
    errors.CapacityError: WireError(grpc.StatusCode.RESOURCE_EXHAUSTED, True),
    errors.RunFinishedError: WireError(grpc.StatusCode.FAILED_PRECONDITION, False),
    errors.LearnerUnavailableError: WireError(grpc.StatusCode.UNAVAILABLE, True),
}
"""Errors that may cross the wire; all others become INTERNAL with an incident id."""

_MAX_TEXT_BYTES = 1000
_MAX_VALUE_BYTES = 400
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
        for name in ("field", "expected", "actual"):
            info.metadata[name] = _shorten(str(getattr(error, name)), _MAX_VALUE_BYTES)
    detail = any_pb2.Any()
    detail.Pack(info)
    code: int = wire.code.value[0]
    text = _shorten(str(error), _MAX_TEXT_BYTES)
    return rpc_status.to_status(status_pb2.Status(code=code, message=text, details=[detail]))


def _shorten(text: str, num_bytes: int) -> str:
    """Returns text of so many bytes at most: gRPC drops a status of more than 8 kB."""
    data = text.encode(errors="replace")
    if len(data) <= num_bytes:
        return data.decode()
    return data[:num_bytes].decode(errors="ignore") + " ..."


def error_from(call_error: grpc.RpcError) -> errors.ImpalaError:
    """Returns the error of a failed call.

    Only a status with a reason of this project was made by the learner. All others are made by
    gRPC itself or by something between the two ends, such as a proxy: whatever their code, they
    become LearnerUnavailableError, after which clients reconnect with back-off.
    """
    # gRPC's errors are also Calls, although its stubs exclude that.
    call: Any = call_error
    code: grpc.StatusCode | None = call.code() if hasattr(call, "code") else None
    text: str = (call.details() if hasattr(call, "details") else "") or str(call_error)
    for detail in _details_of(call):
        info = error_details_pb2.ErrorInfo()
        if not _is_unpacked(detail, info) or info.reason not in _BY_REASON:
            continue
        kind = _BY_REASON[info.reason]
        if kind is errors.SpecMismatchError:
            facts = info.metadata
            return errors.SpecMismatchError(facts["field"], facts["expected"], facts["actual"])
        return errors.rebuild_error(info.reason, text)
    if code in _OF_NO_CONNECTION:
        return errors.LearnerUnavailableError(text)
    name = code.name if isinstance(code, grpc.StatusCode) else "an error"
    return errors.LearnerUnavailableError(
        f"{name} without a reason of the learner's (a proxy, or another release): {text}"
    )


def _details_of(call: Any) -> Sequence[any_pb2.Any]:
    """Returns the details of a failed call; none where they are malformed."""
    if not hasattr(call, "trailing_metadata"):
        return ()
    try:
        status: Any = rpc_status.from_call(call)
    except (ValueError, DecodeError):  # contradicts code or text, or is no message
        return ()
    return status.details if status is not None else ()


def _is_unpacked(detail: any_pb2.Any, info: error_details_pb2.ErrorInfo) -> bool:
    try:
        return bool(detail.Unpack(info)) and info.domain == DOMAIN
    except DecodeError:
        return False
