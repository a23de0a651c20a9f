"""BoundsTable: checks messages against a table of the bound of every field.

Used by `field_bounds` for requests and by `response_bounds` for responses. No grpc.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


class Text(NamedTuple):
    """A string of at most so many characters."""

    max_chars: int


class Number(NamedTuple):
    """A number from `low` to `high`; never NaN."""

    low: float
    high: float


class Items(NamedTuple):
    """A list of at most so many items, or a map of at most so many entries.

    `each` bounds scalars and the keys of a map; messages have bounds of their own.
    """

    max_count: int
    each: Number | Text | None = None


class Exempt(NamedTuple):
    """Without a bound of its own, for a reason."""

    reason: str


_PACKAGE = "impala_rl.v1"
Bound = Text | Number | Items | Exempt
_Check = Callable[[Any], str]  # Any: a message of the descriptor


class BoundsTable:
    """The bounds of all fields of some messages. Immutable but for a cache of prepared checks."""

    def __init__(self, bounds: Mapping[str, Mapping[str, Bound]]) -> None:
        """Takes the bound of every field by message; not of fields that hold one message."""
        self._bounds = bounds
        self._checks: dict[str, tuple[_Check, ...]] = {}  # by message

    def find_violation(self, message: Message) -> str:
        """Returns which field is out of its bound, expected and got; "" for none.

        A message of another package that is not in the table (gRPC's own services) is let through.
        """
        name = message.DESCRIPTOR.name
        if name not in self._bounds and message.DESCRIPTOR.file.package != _PACKAGE:
            return ""
        if name not in self._checks:
            self._checks[name] = tuple(self._make_checks(message.DESCRIPTOR))
        for check in self._checks[name]:
            if text := check(message):
                return text
        return ""

    def _make_checks(self, descriptor: Any) -> Iterator[_Check]:  # Any: protobuf has two classes
        bounds = self._bounds.get(descriptor.name, {})
        for field in descriptor.fields:
            bound = bounds.get(field.name)
            if isinstance(bound, Exempt):
                continue
            if field.is_repeated:
                assert isinstance(bound, Items), field.full_name
                yield functools.partial(self._check_items, field.name, bound)
            elif field.message_type is not None:
                yield functools.partial(self._check_part, field.name)
            elif isinstance(bound, Text):
                yield functools.partial(_check_text, field.name, bound)
            else:
                assert isinstance(bound, Number), field.full_name
                yield functools.partial(_check_number, field.name, bound, _is_optional(field))

    def _check_part(self, name: str, message: Any) -> str:
        if not message.HasField(name):
            return ""
        text = self.find_violation(getattr(message, name))
        return text and f"{name}.{text}"

    def _check_items(self, name: str, bound: Items, message: Any) -> str:
        items = getattr(message, name)
        if len(items) > bound.max_count:
            return f"{name}: expected at most {bound.max_count}, got {len(items)}"
        if bound.each is None:
            found = (text for one in items if (text := self.find_violation(one)))
            return next((f"{name}.{text}" for text in found), "")
        found = (text for one in items if (text := _judge(bound.each, one)))
        return next((f"{name}: {text}" for text in found), "")


def _is_optional(field: FieldDescriptor) -> bool:
    return field.containing_oneof is not None  # proto3's optional is a oneof of its own


def _check_text(name: str, bound: Text, message: Any) -> str:
    text = _judge_text(bound, getattr(message, name))
    return text and f"{name}: {text}"


def _check_number(name: str, bound: Number, is_optional: bool, message: Any) -> str:
    text = _judge_number(bound, getattr(message, name))
    if not text or (is_optional and not message.HasField(name)):
        return ""
    return f"{name}: {text}"


def _judge(bound: Number | Text, value: Any) -> str:  # Any: a number or a string
    return _judge_text(bound, value) if isinstance(bound, Text) else _judge_number(bound, value)


def _judge_text(bound: Text, value: str) -> str:
    if len(value) <= bound.max_chars:
        return ""
    return f"expected at most {bound.max_chars} characters, got {len(value)}"


def _judge_number(bound: Number, value: float) -> str:
    if bound.low <= value <= bound.high:
        return ""
    return f"expected {bound.low:.15g} to {bound.high:.15g}, got {value!r}"
