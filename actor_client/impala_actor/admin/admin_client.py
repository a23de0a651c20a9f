"""Calls to a learner's admin service: the only user of its stubs on this side.

Used by `impala-admin` on one thread. Failed calls raise errors of this project. A change carries a
request id, so that repeating it after a lost answer has no second effect.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.message import Message

from impala_common.codec.response_bounds import checked_response
from impala_common.errors import (
    ConfigError,
    ImpalaError,
    LearnerUnavailableError,
    ProtocolMismatchError,
)
from impala_common.rpc.addresses import is_address, require_server_address
from impala_common.rpc.channel import make_channel
from impala_common.rpc.errors import error_from
from impala_common.rpc.proxies import describe_proxy
from impala_common.rpc.security import ClientSecurity
from impala_common.rpc.tls_probe import find_tls_error
from impala_common.run.run_directory import RunDirectory
from impala_rl.v1 import admin_pb2, admin_pb2_grpc, policy_admin_pb2, policy_admin_pb2_grpc

POLICY_METHODS = frozenset({"ListClients", "DrainClients"})
"""Methods of policy servers; all others are the learner's."""


class AdminClient:
    """A connection to one learner's admin service."""

    def __init__(
        self,
        address: str,
        security: ClientSecurity | None = None,
        timeout_s: float = 150.0,
        request_id: str = "",
        expected_run_id: int = 0,
    ) -> None:
        """Connects when first used.

        Args:
          address: unix:PATH or HOST:PORT.
          security: certificates and token.
          timeout_s: deadline of each call but `watch`.
          request_id: of a single change; empty: a new id for each change.
          expected_run_id: learner_run_id that changes are for; 0: any.

        Raises:
          ConfigError: a file cannot be used.
        """
        self.address = address
        self._timeout_s = timeout_s
        self._request_id = request_id
        self._expected_run_id = expected_run_id
        self._security = security or ClientSecurity()
        self._channel = make_channel(address, self._security)
        self._stub = admin_pb2_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._policy = policy_admin_pb2_grpc.PolicyAdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def call(self, method: str, **fields: Any) -> Any:  # Any: the method's response
        """Calls a method of AdminService or PolicyAdminService by name, with `fields`.

        Raises:
          ConfigError: no message holds a value.
          ImpalaError: the learner refused it.
          LearnerUnavailableError: no learner answers at the address.
        """
        is_policy = method in POLICY_METHODS
        messages, stub = (policy_admin_pb2, self._policy) if is_policy else (admin_pb2, self._stub)
        kind = getattr(messages, f"{method}Request")
        request = kind()
        for name, value in fields.items():
            with _held(name, value):
                request.MergeFrom(kind(**{name: value}))
        if "header" in request.DESCRIPTOR.fields_by_name:
            with _held("--request-id", self._request_id):
                request.header.request_id = self._request_id or secrets.token_hex(8)
            request.header.expected_run_id = self._expected_run_id
        try:
            return checked_response(getattr(stub, method)(request, timeout=self._timeout_s))
        except grpc.RpcError as error:
            raise self._explain(error, is_policy) from error

    def watch(self, interval_s: float) -> Iterator[Any]:  # Any: LearnerStatus
        """Yields the status at an interval until the learner ends; raises as `call`."""
        request = admin_pb2.WatchStatusRequest()
        request.interval.FromNanoseconds(int(interval_s * 1e9))
        responses = self._stub.WatchStatus(request)
        try:
            for response in map(checked_response, responses):
                yield response.status
        except grpc.RpcError as error:
            raise self._explain(error) from error
        finally:
            responses.cancel()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _explain(self, error: grpc.RpcError, is_policy: bool = False) -> ImpalaError:
        """Returns the error of a failed call, and why the server could not be reached."""
        whom = "policy server" if is_policy else "learner"
        found = error_from(error)
        text = str(found)
        get_code = getattr(error, "code", None)  # most errors of calls are calls themselves
        code = get_code() if get_code is not None else None
        if isinstance(found, LearnerUnavailableError) and code is grpc.StatusCode.UNIMPLEMENTED:
            return ProtocolMismatchError(
                f"the {whom} at {self.address} does not know this command: install the same "
                f"release on both sides ({text})"
            )
        if not isinstance(found, LearnerUnavailableError) or "connect" not in text:
            return found
        return find_tls_error(self.address, self._security) or LearnerUnavailableError(
            f"no {whom} answers at {self.address}{describe_proxy(self.address)}: does it run, and "
            f"as the same user? ({text})"
        )


@contextlib.contextmanager
def _held(name: str, value: object) -> Iterator[None]:
    """Turns the errors of a number out of range, or of a text that is not UTF-8."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(name, value, "a value that a request holds", str(error)) from None


def find_address(run: Path | None, address: str, is_policy: bool = False) -> str:
    """Returns the address of an admin service: a learner's, or of the policy server beside it.

    Args:
      run: the run's folder, or None.
      address: the address itself, or empty. Without either, the only run below runs/ with a running
        server is taken.
      is_policy: whether the policy server's is wanted.

    Raises:
      ConfigError: none is known.
    """
    if address:
        require_server_address("--address", address)
        return address
    if run is not None:
        return _read_address(run, is_policy)
    found = sorted(
        path.parent for path in Path("runs").glob(f"*/{_file_of(RunDirectory(''), is_policy).name}")
    )
    if len(found) == 1:
        return _read_address(found[0], is_policy)
    names = ", ".join(map(str, found))
    raise ConfigError(
        "--run", "", "the folder of a run", f"several run: {names}" if found else "none runs here"
    )


def _file_of(run: RunDirectory, is_policy: bool) -> Path:
    return run.policy_admin_address_path if is_policy else run.admin_address_path


def _read_address(run: Path, is_policy: bool) -> str:
    path = _file_of(RunDirectory(run), is_policy)
    with contextlib.suppress(OSError, ValueError):  # ValueError: bytes that are no UTF-8
        address = path.read_text(encoding="utf-8").strip()
        if is_address(address):
            return address
    whom = "policy server" if is_policy else "learner"
    raise ConfigError(
        "--run",
        str(run),
        f"the folder of a run with a {whom} at work",
        f"there is no {path} (no {whom} runs there, or it was started with --admin-address none)",
    )


def to_json(message: Message) -> dict[str, Any]:  # Any: JSON
    """Returns a message as JSON with plain numbers: durations in seconds, enums by short name.

    Identities are hexadecimal text: JSON's numbers have 53 bits.
    """
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            result[field.name] = dict(value)
        elif field.is_repeated:
            result[field.name] = [_one_to_json(field, one) for one in value]
        elif field.message_type is duration_pb2.Duration.DESCRIPTOR:
            result[f"{field.name}_s"] = value.ToNanoseconds() / 1e9
        else:
            result[field.name] = _one_to_json(field, value)
    return result


def _one_to_json(field: Any, value: Any) -> Any:
    if field.name in ("learner_run_id", "client_run_id"):
        return f"{value:016x}"
    if field.enum_type is not None:
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return field.enum_type.values_by_number[value].name.removeprefix(prefix)
    if isinstance(value, timestamp_pb2.Timestamp):
        return value.ToJsonString()
    return to_json(value) if isinstance(value, Message) else value
