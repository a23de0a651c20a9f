"""Every field of every request has a bound, and the door holds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bound_values import fill_in, messages_of_methods, values_of
from google.protobuf import duration_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from impala_common.codec.bounds_table import Bound, Exempt, Items, Number, Text
from impala_common.codec.field_bounds import BOUNDS, find_violation, validate_bounds
from impala_common.errors import InvalidRequestError
from impala_rl.v1 import admin_pb2, learner_pb2

REQUESTS = messages_of_methods("input_type")
ADMIN = set(admin_pb2.DESCRIPTOR.message_types_by_name)
"""Of a listener of its own, whose messages have at most 1 MiB."""


def fields() -> Iterator[tuple[str, FieldDescriptor]]:
    for name, descriptor in REQUESTS.items():
        for field in descriptor.fields:
            if field.message_type is None or field.is_repeated:
                yield name, field


ALL = [pytest.param(name, field, id=f"{name}.{field.name}") for name, field in fields()]


def test_every_message_with_fields_to_bound_is_in_the_table_and_no_other() -> None:
    assert set(BOUNDS) == {name for name, _ in fields()}


@pytest.mark.parametrize(("name", "field"), ALL)
def test_field_has_a_bound_or_a_reason(name: str, field: FieldDescriptor) -> None:
    """The fault: there was no such table."""
    bound: Bound | None = BOUNDS.get(name, {}).get(field.name)

    assert bound is not None, "no bound: add one to impala_common/codec/field_bounds.py"
    if isinstance(bound, Exempt):
        assert len(bound.reason) > 15
    elif field.is_repeated:
        assert isinstance(bound, Items)
        assert (bound.each is None) == (field.message_type is not None)
        assert bound.max_count <= 1 << 16
    elif field.type == FieldDescriptor.TYPE_STRING:
        assert isinstance(bound, Text)
        assert bound.max_chars <= (1 << 20 if name in ADMIN else 1024)
    else:
        assert isinstance(bound, Number)
        assert bound.low <= 0 <= bound.high or bound.low == 1


def test_table_has_no_field_that_is_gone() -> None:
    for name, bounds in BOUNDS.items():
        known = {
            field.name
            for field in REQUESTS[name].fields
            if field.message_type is None or field.is_repeated
        }
        assert set(bounds) == known, name


@pytest.mark.parametrize(("name", "field"), ALL)
def test_value_beyond_the_bound_is_named_and_one_at_it_is_taken(
    name: str, field: FieldDescriptor
) -> None:
    """The fault: a door that looks at strings alone."""
    bound = BOUNDS[name][field.name]
    for value, is_good in values_of(BOUNDS, field, bound):
        message: Any = GetMessageClass(REQUESTS[name])()
        fill_in(BOUNDS, message)
        if field.is_repeated:
            del getattr(message, field.name)[:]
            getattr(message, field.name).extend(value)
        else:
            setattr(message, field.name, value)

        violation = find_violation(message)

        assert (violation == "") == is_good, value if is_good else violation
        assert is_good or violation.startswith(f"{field.name}: expected")


def test_bound_of_a_message_inside_is_named_with_its_path() -> None:
    request = learner_pb2.RegisterRequest()
    request.environment.observation_leaves.add(name="x" * 20_000_000, dtype=1)

    with pytest.raises(
        InvalidRequestError,
        match=r"^environment\.observation_leaves\.name: expected at most 256 .*, got 20000000$",
    ):
        validate_bounds(request)


def test_message_of_another_package_is_let_through() -> None:
    duration = duration_pb2.Duration(seconds=1, nanos=-(2**31))

    assert find_violation(duration).startswith("nanos: expected")
    assert find_violation(health_pb2.HealthCheckRequest(service="x" * (1 << 20))) == ""
