"""OpenStream: one bidirectional stream whose messages the rules send and read one by one."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import grpc

from impala_conformance.refusal import Refusal, read_refusal
from impala_conformance.rule import ViolationError


class OpenStream:
    """One stream; the server has `patience_s` for all of it."""

    def __init__(
        self, method: Any, make_request: Callable[..., Any], patience_s: float
    ) -> None:  # Any: a stub's method, and messages of both sides
        """Opens the stream.

        Args:
          method: of a stub.
          make_request: makes a request of a payload by name.
          patience_s: longest life of the stream.
        """
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._make_request = make_request
        self._patience_s = patience_s
        self._call = method(iter(self._requests.get, None), timeout=patience_s)

    def send(self, **payload: Any) -> None:
        """Sends a request."""
        self._requests.put(self._make_request(**payload))

    def half_close(self) -> None:
        """Says that nothing more comes."""
        self._requests.put(None)

    def next(self) -> Any:
        """Returns the next response.

        Raises:
          ViolationError: the stream ended.
        """
        try:
            return next(self._call)
        except StopIteration as error:
            raise ViolationError("expected an answer, got the end of the stream") from error
        except grpc.RpcError as error:
            raise ViolationError(f"expected an answer, got {self._describe(error)}") from error

    def read_to_end(self) -> list[Any]:
        """Returns all further responses of a stream that ends without an error."""
        try:
            return list(self._call)
        except grpc.RpcError as error:
            text = f"expected the end of the stream, got {self._describe(error)}"
            raise ViolationError(text) from error

    def require_refused(self, *expected: str) -> Refusal:
        """Reads on until the stream is refused, as one of `expected`, each "CODE REASON".

        Raises:
          ViolationError: it was not.
        """
        try:
            answers = list(self._call)
        except grpc.RpcError as error:
            return require_refusal(error, *expected)
        kinds = [answer.WhichOneof("payload") for answer in answers]
        raise ViolationError(
            f"expected {' or '.join(expected)}, got the end after {kinds or 'no answer'}"
        )

    def break_off(self) -> None:
        """Breaks the stream, as a network would."""
        self._call.cancel()

    def close(self) -> None:
        """Ends the stream and gRPC's thread that reads the requests."""
        self._call.cancel()
        self._requests.put(None)

    def _describe(self, error: grpc.RpcError) -> str:
        refusal = read_refusal(error)
        if refusal.code == "DEADLINE_EXCEEDED":
            return f"none within {self._patience_s:g} s"
        return str(refusal)


def require_refusal(error: grpc.RpcError, *expected: str) -> Refusal:
    """Returns how a call was refused, if that is one of `expected`, each "CODE REASON"."""
    refusal = read_refusal(error)
    if f"{refusal.code} {refusal.reason}" not in expected:
        raise ViolationError(f"expected {' or '.join(expected)}, got {refusal}") from error
    return refusal


def require_unimplemented(channel: grpc.Channel, service: str, patience_s: float) -> None:
    """Calls a method that `service`, a full name, does not have; UNIMPLEMENTED is expected."""
    call: Any = channel.unary_unary(f"/{service}/Fly")
    try:
        call(b"", timeout=patience_s)
    except grpc.RpcError as error:
        require_refusal(error, "UNIMPLEMENTED ")
        return
    raise ViolationError("expected UNIMPLEMENTED, got an answer")
