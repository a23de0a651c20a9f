"""Every field of every response has a bound, and the door of clients holds it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from bound_values import fill_in, messages_of_methods, values_of
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from impala_actor.acting.learner_client import LearnerClient
from impala_common.codec.bounds_table import Bound, Exempt, Items, Number, Text
from impala_common.codec.field_bounds import BOUNDS
from impala_common.codec.response_bounds import (
    RESPONSE_BOUNDS,
    checked_response,
    require_unroll_size,
)
from impala_common.codec.specs import pack_unroll_spec
from impala_common.errors import InvalidResponseError
from impala_common.testing.unrolls import make_vector_spec
from impala_rl.v1 import admin_pb2, learner_pb2

pytestmark = pytest.mark.timeout(60)


RESPONSES = messages_of_methods("output_type")
TABLE = BOUNDS | RESPONSE_BOUNDS


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def fields() -> Iterator[Any]:
    for name in RESPONSE_BOUNDS:
        for field in RESPONSES[name].fields:
            if field.message_type is None or field.is_repeated:
                yield pytest.param(name, field, id=f"{name}.{field.name}")


ALL = list(fields())


def test_every_message_a_server_can_send_is_in_a_table_with_fields_to_bound() -> None:
    """Before: there was a table for requests alone."""
    found = {
        name: {
            field.name
            for field in descriptor.fields
            if field.message_type is None or field.is_repeated
        }
        for name, descriptor in RESPONSES.items()
    }
    known = {name: set(bounds) for name, bounds in RESPONSE_BOUNDS.items()}
    assert known == {name: names for name, names in found.items() if names and name not in BOUNDS}


@pytest.mark.parametrize(("name", "field"), ALL)
def test_field_has_a_bound_or_a_reason(name: str, field: FieldDescriptor) -> None:
    bound: Bound | None = RESPONSE_BOUNDS[name].get(field.name)

    if isinstance(bound, Exempt):
        assert len(bound.reason) > 15
    elif field.is_repeated:
        assert isinstance(bound, Items)
        assert (bound.each is None) == (field.message_type is not None and not is_map(field))
    elif field.type == FieldDescriptor.TYPE_STRING:
        assert isinstance(bound, Text)
        assert bound.max_chars <= 1 << 16
    else:
        assert isinstance(bound, Number)
        assert bound.low <= 1 <= bound.high


@pytest.mark.parametrize(("name", "field"), ALL)
def test_value_beyond_the_bound_is_named_and_one_at_it_is_taken(
    name: str, field: FieldDescriptor
) -> None:
    """Before: whatever a learner sent was believed."""
    bound = TABLE[name][field.name]
    for value, is_good in values_of(TABLE, field, bound):
        message: Any = GetMessageClass(RESPONSES[name])()
        fill_in(TABLE, message)
        if is_map(field):
            getattr(message, field.name).update({f"{key}{i}": 1.0 for i, key in enumerate(value)})
            if len(value) == 1:
                getattr(message, field.name).clear()
                getattr(message, field.name)[value[0]] = 1.0
        elif field.is_repeated:
            del getattr(message, field.name)[:]
            getattr(message, field.name).extend(value)
        else:
            setattr(message, field.name, value)
        if is_good:
            assert checked_response(message) is message
            continue
        with pytest.raises(InvalidResponseError, match=rf"{name}\.{field.name}: expected"):
            checked_response(message)


SPEC = make_vector_spec()


def good_answer() -> learner_pb2.RegisterResponse:
    answer = learner_pb2.RegisterResponse(unroll=pack_unroll_spec(SPEC))
    answer.model.name = "mlp"
    answer.limits.window = answer.limits.max_unrolls_per_message = 1
    answer.limits.max_message_bytes = 1 << 20
    return answer


class HostileLearner:
    """Answers Register with whatever a test sets; a real server on a real port."""

    def __init__(self) -> None:
        self.answer = good_answer()
        self._server = grpc.server(futures.ThreadPoolExecutor(1, "test-hostile"))
        register = grpc.unary_unary_rpc_method_handler(
            lambda unused_request, unused_context: self.answer.SerializeToString()
        )
        handlers = {"Register": register}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("impala_rl.v1.LearnerService", handlers),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> HostileLearner:
        self._server.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.stop(None).wait(10.0)


@pytest.fixture(scope="module")
def learner() -> Iterator[HostileLearner]:
    with HostileLearner() as one:
        yield one


WRONG: dict[str, tuple[str, Any]] = {
    "limits.window: expected 1": ("limits.window", -1),
    "limits.window": ("limits.window", 2**31 - 1),
    "unroll.unroll_length": ("unroll.unroll_length", 2**31 - 1),
    "model.hidden_dim": ("model.hidden_dim", 2**31 - 1),
    "model.name": ("model.name", "x" * 20_000_000),
    "seed": ("seed", -1),
}


@pytest.mark.parametrize("text", WRONG)
def test_actor_of_a_hostile_learner_ends_with_the_field_it_sent(
    learner: HostileLearner, text: str
) -> None:
    """Before: MemoryError, a traceback, or a window of no message at all."""
    path, value = WRONG[text]
    learner.answer = good_answer()
    *parents, name = path.split(".")
    message: Any = learner.answer
    for parent in parents:
        message = getattr(message, parent)
    setattr(message, name, value)
    client = LearnerClient(f"127.0.0.1:{learner.port}", "actor", connect_timeout_s=20.0)
    try:
        with pytest.raises(InvalidResponseError, match=text):
            client.register(SPEC.environment, 1)
        learner.answer = good_answer()
        assert client.register(SPEC.environment, 1).window == 1
    finally:
        client.close()


def test_unrolls_too_large_for_a_message_are_named() -> None:
    require_unroll_size(1 << 20, 64)
    with pytest.raises(InvalidResponseError, match="expected at most 67108864 bytes"):
        require_unroll_size(1 << 20, 65)


def test_status_of_a_state_that_does_not_exist_is_an_error_of_ours() -> None:
    """Before: `impala-admin status` ended with a KeyError."""
    response = admin_pb2.GetStatusResponse()
    response.status.state = 77  # type: ignore[assignment]

    with pytest.raises(InvalidResponseError, match=r"status\.state: expected 0 to 5, got 77"):
        checked_response(response)
