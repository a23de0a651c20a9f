"""The table of errors, both ways: a class on one side is the same class on the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from impala_common import errors
from impala_common.rpc.errors import DOMAIN, error_from, status_of, wire_error_of
from impala_server.local.process import ActorSettingsError

OUTSIDE_ERRORS_PY = (ActorSettingsError,)
"""Imported, so that `all_errors` finds them whatever else the process has imported."""


def all_errors(base: type[errors.ImpalaError] = errors.ImpalaError) -> Iterator[Any]:
    """Yields every error class of the packages, the base among them."""
    yield base
    for kind in base.__subclasses__():
        if kind.__module__.startswith("impala_"):
            yield from all_errors(kind)


MUST_CROSS = {
    "SPEC_MISMATCH": (grpc.StatusCode.FAILED_PRECONDITION, False),
    "MODEL": (grpc.StatusCode.FAILED_PRECONDITION, False),
    "PROTOCOL_MISMATCH": (grpc.StatusCode.FAILED_PRECONDITION, False),
    "CONFIG": (grpc.StatusCode.FAILED_PRECONDITION, False),
    "UNSUPPORTED_SPACE": (grpc.StatusCode.FAILED_PRECONDITION, False),
    "INVALID_REQUEST": (grpc.StatusCode.INVALID_ARGUMENT, False),
    "DAMAGED_REQUEST": (grpc.StatusCode.INVALID_ARGUMENT, True),
    "INVALID_UNROLL": (grpc.StatusCode.INVALID_ARGUMENT, False),
    "UNAUTHENTICATED": (grpc.StatusCode.UNAUTHENTICATED, False),
    "PERMISSION_DENIED": (grpc.StatusCode.PERMISSION_DENIED, False),
    "STALE_SESSION": (grpc.StatusCode.ABORTED, False),
    "RUN_MISMATCH": (grpc.StatusCode.ABORTED, False),
    "ILLEGAL_TRANSITION": (grpc.StatusCode.FAILED_PRECONDITION, False),
    "CHECKPOINT": (grpc.StatusCode.FAILED_PRECONDITION, False),
    "CHECKPOINT_WRITE": (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
    "CHECKPOINT_UNREADABLE": (grpc.StatusCode.DATA_LOSS, False),
    "NOT_FOUND": (grpc.StatusCode.NOT_FOUND, False),
    "ALREADY_EXISTS": (grpc.StatusCode.ALREADY_EXISTS, False),
    "BANNED": (grpc.StatusCode.PERMISSION_DENIED, False),
    "CAPACITY": (grpc.StatusCode.RESOURCE_EXHAUSTED, True),
    "LEARNER_UNAVAILABLE": (grpc.StatusCode.UNAVAILABLE, True),
    "RUN_FINISHED": (grpc.StatusCode.FAILED_PRECONDITION, False),
}
"""docs/protocol.md, "Errors"."""
STAYS_HOME = {
    "INTERNAL": "the base: no reason of its own",
    "UNKNOWN_ENVIRONMENT": "environments are made by actors",
    "MISSING_EXTRA": "environments are made by actors",
    "INVALID_RESPONSE": "a client's name for what a learner sent",
    "QUEUE_CLOSED": "means that this process is taken down",
    "SECURITY": "the base of what follows",
    "TLS": "where TLS does not fit, no call arrives",
    "RUN_IN_USE": "the server would not have started",
    "ADDRESS_IN_USE": "the server would not have started",
    "MESSAGE": "between the server's own processes",
    "DIVERGED": "the learner stops; actors are told UNAVAILABLE",
    "DEVICE_MEMORY": "the learner pauses, and its status says why, or stops",
    "RANK_LOST": "the learner ranks end; actors are told UNAVAILABLE",
    "ENVIRONMENT_FAILED": "environments are made by actors",
    "ACTOR_SETTINGS": "impala-train's name for what one of its actors ended with",
}

CLASSES = {kind.reason: kind for kind in all_errors()}


def make(kind: Any, text: str = "some text") -> errors.ImpalaError:
    """Returns an error of the class, whatever its constructor takes."""
    if kind is errors.SpecMismatchError:
        return errors.SpecMismatchError("observation.shape", (4,), (5,))
    if kind is errors.ConfigError:
        return errors.ConfigError("x", 1, "2", "because")
    if kind is errors.MissingExtraError:
        return errors.MissingExtraError("X", "atari")
    made: errors.ImpalaError = kind(text)
    return made


class FailedCall(grpc.RpcError, grpc.Call):
    """What a failed call raises, made of a status as the server sends it."""

    def __init__(self, status: Any, text: str | None = None) -> None:
        self._status = status
        self._text = status.details if text is None else text

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return self._status.trailing_metadata

    def initial_metadata(self) -> Any:
        return ()

    add_callback = cancel = is_active = time_remaining = None  # type: ignore[assignment]


FailedCall.__abstractmethods__ = frozenset()


def with_text(call: FailedCall, text: str) -> FailedCall:
    """Returns the call with other words, in both places where gRPC carries them."""
    status = rpc_status.from_call(call)
    status.message = text
    return FailedCall(rpc_status.to_status(status), text)


def test_every_error_is_known_to_cross_the_wire_or_to_stay() -> None:
    assert set(CLASSES) == set(MUST_CROSS) | set(STAYS_HOME)


@pytest.mark.parametrize("reason", MUST_CROSS)
def test_error_in_the_table_is_rebuilt_from_its_reason(reason: str) -> None:
    """Seen to fail for ConfigError when rebuilt through its constructor."""
    error = make(CLASSES[reason])
    code, is_retryable = MUST_CROSS[reason]

    call = FailedCall(status_of(error))
    back = error_from(call)

    assert wire_error_of(error) == (code, is_retryable)
    assert call.code() is code
    assert type(back) is type(error)
    assert str(back) == str(error)


@pytest.mark.parametrize("reason", MUST_CROSS)
def test_error_whose_text_is_another_is_the_same_class(reason: str) -> None:
    call = with_text(FailedCall(status_of(make(CLASSES[reason]))), "an anderer Text")

    assert type(error_from(call)) is CLASSES[reason]


def test_spec_mismatch_carries_its_facts_as_metadata() -> None:
    call = with_text(FailedCall(status_of(make(errors.SpecMismatchError))), "")

    back = error_from(call)

    assert isinstance(back, errors.SpecMismatchError)
    assert (back.field, back.expected, back.actual) == ("observation.shape", "(4,)", "(5,)")
    assert str(back) == "observation.shape: expected (4,), got (5,)"


@pytest.mark.parametrize("reason", sorted(STAYS_HOME))
def test_error_that_stays_home_becomes_internal_with_an_incident_id(
    reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = make(CLASSES[reason], "a secret path")

    with caplog.at_level(logging.ERROR):
        call = FailedCall(status_of(secret))

    assert call.code() is grpc.StatusCode.INTERNAL
    words = call.details().split()
    assert words[:2] == ["internal", "error"]
    assert len(words) == 3
    assert words[2] in caplog.text
    assert str(secret) in caplog.text
    assert type(error_from(call)) is errors.LearnerUnavailableError


def test_bug_becomes_internal_and_tells_the_client_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = FailedCall(status_of(KeyError("secret")))

    assert call.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in call.details()
    assert "secret" not in str(call.trailing_metadata())
    assert "secret" in caplog.text


def test_two_incidents_have_two_ids() -> None:
    assert len({status_of(KeyError()).details for _ in range(10)}) == 10


class PlainCall(FailedCall):
    """A failed call of gRPC's own making: code and text, no details."""

    def __init__(self, code: grpc.StatusCode, text: str = "") -> None:
        self._code, self._text = code, text

    def code(self) -> grpc.StatusCode:
        return self._code

    def trailing_metadata(self) -> Any:
        return ()


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_error_without_a_reason_of_ours_is_tried_again(code: grpc.StatusCode) -> None:
    """Any code can come from gRPC or a proxy. Seen to fail for all but three of them."""
    error = error_from(PlainCall(code, "words"))

    assert type(error) is errors.LearnerUnavailableError
    assert "words" in str(error)


class GarbledCall(PlainCall):
    """A failed call whose details are bytes of somebody else."""

    def __init__(self, details: bytes) -> None:
        super().__init__(grpc.StatusCode.INTERNAL, "words")
        self._garbled = details

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._garbled),)


@pytest.mark.parametrize(
    "details",
    [
        b"\xff\xff",
        status_pb2.Status(code=3, message="words").SerializeToString(),
        status_pb2.Status(code=13, message="others").SerializeToString(),
        status_pb2.Status(
            code=13,
            message="words",
            details=[
                any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
            ],
        ).SerializeToString(),
    ],
)
def test_error_with_details_that_cannot_be_read_is_tried_again(details: bytes) -> None:
    """Seen to end with ValueError and DecodeError, which no caller expects."""
    assert type(error_from(GarbledCall(details))) is errors.LearnerUnavailableError


@pytest.mark.parametrize(
    ("domain", "reason"), [("other", "STALE_SESSION"), (DOMAIN, "NO_SUCH_REASON"), (DOMAIN, "")]
)
def test_error_with_foreign_details_is_tried_again(domain: str, reason: str) -> None:
    status = rpc_status.from_call(FailedCall(status_of(errors.StaleSessionError("words"))))
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain)
    status.details[0].Pack(info)

    error = error_from(FailedCall(rpc_status.to_status(status)))

    assert type(error) is errors.LearnerUnavailableError
    assert "ABORTED" in str(error)


def test_error_that_is_no_call_is_tried_again() -> None:
    assert type(error_from(grpc.RpcError("words"))) is errors.LearnerUnavailableError


@pytest.mark.parametrize("letter", ["a", "ä", "\ud800"])
@pytest.mark.parametrize("kind", [errors.NotFoundError, errors.SpecMismatchError])
def test_error_of_any_length_arrives_as_what_it_is(kind: Any, letter: str) -> None:
    """Seen to fail: gRPC dropped a long one, and clients took the learner for unreachable."""
    text = letter * 30_000
    sent = kind(text, text, text) if kind is errors.SpecMismatchError else kind(text)

    def fail(unused: bytes, context: grpc.ServicerContext) -> None:
        context.abort_with_status(status_of(sent))

    handlers = {"Fail": grpc.unary_unary_rpc_method_handler(fail)}
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Test", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    with channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/Test/Fail")(b"", timeout=60.0)
    server.stop(0.0)

    assert type(error_from(caught.value)) is kind
