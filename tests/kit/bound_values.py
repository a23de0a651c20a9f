"""Messages of the protocol, values at the bounds of their fields, and messages within them."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

import impala_rl.v1
from impala_common.codec.bounds_table import Bound, Items, Number, Text

Table = Mapping[str, Mapping[str, Bound]]


def messages_of_methods(side: Literal["input_type", "output_type"]) -> dict[str, Descriptor]:
    """Returns the messages that clients (input) or servers (output) can send, by name.

    A message is sent on its own or inside of another one.
    """
    found: dict[str, Descriptor] = {}

    def walk(descriptor: Descriptor) -> None:
        if descriptor.name in found or descriptor.GetOptions().map_entry:
            return
        found[descriptor.name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None:
                walk(field.message_type)

    for module_info in pkgutil.iter_modules(impala_rl.v1.__path__):
        if module_info.name.endswith("_pb2"):
            module = importlib.import_module(f"impala_rl.v1.{module_info.name}")
            for service in module.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    walk(getattr(method, side))
    return found


def values_of(table: Table, field: FieldDescriptor, bound: Bound) -> Iterator[tuple[Any, bool]]:
    """Yields values of a field and whether they are within its bound, as far as they fit it."""
    match bound:
        case Text(max_chars):
            yield "x" * max_chars, True
            yield "\u00e9" * max_chars, True
            yield "x" * (max_chars + 1), False
        case Number():
            yield from numbers_of(field, bound)
        case Items(max_count, each):
            if isinstance(each, Text):
                yield [each.max_chars * "x"], True
                yield [(each.max_chars + 1) * "x"], False
                item = "x"
            elif each is None:
                item = GetMessageClass(field.message_type)()
                fill_in(table, item)
            else:
                item = max(each.low, min(each.high, 1))
                item = float(item) if field.cpp_type in FLOATS else int(item)
                for value, is_good in numbers_of(field, each):
                    yield [value], is_good
            yield [item] * max_count, True
            yield [item] * (max_count + 1), False


FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def numbers_of(field: FieldDescriptor, bound: Number) -> Iterator[tuple[Any, bool]]:
    if field.cpp_type in FLOATS:
        yield math.nan, False
        for edge in (bound.low, bound.high):
            yield edge, True
            if math.isfinite(edge):
                yield math.copysign(math.inf, edge if edge else -1.0), False
        return
    bits = (
        31
        if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM)
        else 63
    )
    for edge, beyond in (
        (int(bound.low), int(bound.low) - 1),
        (int(bound.high), int(bound.high) + 1),
    ):
        yield edge, True
        if -(1 << bits) <= beyond < 1 << bits:
            yield beyond, False


def fill_in(table: Table, message: Any) -> None:
    """Gives a message's numbers the value nearest to 1 that its bounds allow."""
    for field in message.DESCRIPTOR.fields:
        bound = table.get(message.DESCRIPTOR.name, {}).get(field.name)
        if isinstance(bound, Number) and not field.is_repeated:
            value = max(bound.low, min(bound.high, 1))
            is_float = field.cpp_type in FLOATS
            setattr(message, field.name, float(value) if is_float else int(value))
