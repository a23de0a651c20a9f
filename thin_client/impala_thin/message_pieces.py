"""Messages of observations, cut into pieces of fewer slots.

A server says in its welcome how large a message may be. Each slot stands for itself, so what is
larger goes as several messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from impala_rl.v1 import policy_pb2
from impala_thin.errors import RefusedError

_LISTS = ("terminated", "truncated", "is_first")
_SLOT_BYTES, _LEAF_BYTES, _MESSAGE_BYTES = 32, 16, 64
"""More than what each slot, each leaf and the message have beside the bytes of the leaves."""


def split(message: policy_pb2.SlotObservations, max_bytes: int) -> Iterator[policy_pb2.PlayRequest]:
    """Yields a message as requests of at most `max_bytes` each.

    Raises:
      RefusedError: the observation of one slot is larger.
    """
    request = policy_pb2.PlayRequest(observations=message)
    num = len(message.slots)
    if _bound(message) <= max_bytes or (size := request.ByteSize()) <= max_bytes:
        yield request
        return
    if num == 1:
        raise RefusedError(
            f"the observation of a slot takes a message of {size} bytes, and the server reads "
            f"{max_bytes} at most (max_message_bytes)"
        )
    for chosen in (range(num // 2), range(num // 2, num)):
        yield from split(select(message, chosen), max_bytes)


def select(
    message: policy_pb2.SlotObservations, chosen: Sequence[int]
) -> policy_pb2.SlotObservations:
    """Returns a message with the slots at the places `chosen` alone."""
    num = len(message.slots)
    part = policy_pb2.SlotObservations(
        slots=[message.slots[index] for index in chosen],
        step_numbers=[message.step_numbers[index] for index in chosen],
        rewards=[message.rewards[index] for index in chosen],
    )
    for leaf in message.leaves:
        size = len(leaf) // num
        part.leaves.append(b"".join(leaf[at * size : (at + 1) * size] for at in chosen))
    for name in _LISTS:
        flags = getattr(message, name)
        if flags:
            getattr(part, name).extend(flags[index] for index in chosen)
    return part


def _bound(message: policy_pb2.SlotObservations) -> int:
    """Returns a number of bytes that is never below the message's own, without serialising it."""
    leaves = sum(len(leaf) + _LEAF_BYTES for leaf in message.leaves)
    return leaves + len(message.slots) * _SLOT_BYTES + _MESSAGE_BYTES
