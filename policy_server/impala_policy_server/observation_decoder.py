"""ObservationDecoder: turns SlotObservations into checked arrays.

Called by the dispatcher, on the event loop, before the policy engine sees anything. No gRPC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from impala_common.codec.tensors import plain_bytes
from impala_common.codec.unrolls import require_bounded
from impala_common.errors import InvalidRequestError, InvalidUnrollError
from impala_common.spec.specs import EnvironmentSpec
from impala_policy_server.slot_arrays import Array
from impala_rl.v1 import policy_pb2

_FLAGS = ("terminated", "truncated", "is_first")


class Message(NamedTuple):
    """Observations as they came.

    Attributes:
      content: the message.
      places: int64 [N]: places of its client's slots in the SlotTable.
    """

    content: policy_pb2.SlotObservations
    places: Array


class Observations(NamedTuple):
    """The observations of one message or of several.

    Attributes:
      slots: int64 [n]: slots of their clients.
      step_numbers: int64 [n].
      leaves: leaf name -> [n, ...], read-only; a single frame where frames are stacked.
      rewards: float32 [n].
      terminated: bool [n].
      truncated: bool [n].
      is_first: bool [n].
    """

    slots: Array
    step_numbers: Array
    leaves: dict[str, Array]
    rewards: Array
    terminated: Array
    truncated: Array
    is_first: Array

    def select(self, chosen: Array) -> Observations:
        """Returns those that bool [n] `chosen` marks."""
        leaves = {name: array[chosen] for name, array in self.leaves.items()}
        return Observations(
            self.slots[chosen],
            self.step_numbers[chosen],
            leaves,
            self.rewards[chosen],
            self.terminated[chosen],
            self.truncated[chosen],
            self.is_first[chosen],
        )


class ObservationDecoder:
    """Decodes the messages of one environment."""

    def __init__(self, environment: EnvironmentSpec) -> None:
        """Prepares for observations of `environment`."""
        skip = 1 if environment.frame_stack > 1 else 0
        self._leaves = [
            (leaf.name, np.dtype(leaf.dtype), leaf.shape[skip:])
            for leaf in environment.observation_leaves
        ]
        mask = environment.action_mask
        self._mask_name = "" if mask is None else mask.name

    def decode(self, messages: Sequence[Message]) -> tuple[Array, Observations]:
        """Returns the observations of messages, one after another, and int64 [n]: their places.

        Raises:
          InvalidRequestError: names the field that breaks the contract, in any of them; or two of
            them hold the same slot of one client.
        """
        slots: list[int] = []
        step_numbers: list[int] = []
        rewards: list[float] = []
        flags: dict[str, list[bool]] = {name: [] for name in _FLAGS}
        counts: list[int] = []
        for content, own_places in messages:
            counts.append(_count_slots(content, len(own_places)))
            slots += content.slots[:]
            step_numbers += content.step_numbers[:]
            rewards += content.rewards[:]
            for name, values in flags.items():
                values += _read_flags(content, name, counts[-1])
        given = Observations(
            np.array(slots, np.int64),
            np.array(step_numbers, np.int64),
            self._decode_leaves(messages, counts),
            np.array(rewards, np.float32),
            *(np.array(values, np.bool_) for values in flags.values()),
        )
        _validate_values(given)
        return _find_places(given.slots, counts, messages), given

    def _decode_leaves(
        self, messages: Sequence[Message], counts: Sequence[int]
    ) -> dict[str, Array]:
        for content, _ in messages:
            if len(content.leaves) != len(self._leaves):
                raise InvalidRequestError(
                    f"leaves: expected {len(self._leaves)}, got {len(content.leaves)}"
                )
        leaves = {}
        for index, (name, dtype, shape) in enumerate(self._leaves):
            row_bytes = math.prod(shape) * dtype.itemsize
            try:
                pieces = [
                    plain_bytes(content.codec, content.leaves[index], name, num * row_bytes)
                    for (content, _), num in zip(messages, counts, strict=True)
                ]
            except InvalidUnrollError as error:
                raise InvalidRequestError(str(error)) from error
            plain = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if dtype == np.bool_ and plain.translate(None, b"\0\1"):
                raise InvalidRequestError(f"{name}: expected booleans (0 or 1), got other bytes")
            array = np.frombuffer(plain, dtype).reshape(sum(counts), *shape)
            _require_bounded(name, array)
            if name == self._mask_name and not ((array == 0) | (array == 1)).all():
                raise InvalidRequestError(f"{name}: expected each 0 (illegal) or 1 (legal)")
            leaves[name] = array
        return leaves


def _require_bounded(name: str, array: Array) -> None:
    """Raises InvalidRequestError for numbers that the learner would ban this server for."""
    try:
        require_bounded(name, array)
    except InvalidUnrollError as error:
        raise InvalidRequestError(str(error)) from error


def _count_slots(content: policy_pb2.SlotObservations, num_slots: int) -> int:
    """Returns n of a message from a client with `num_slots` slots."""
    num = len(content.slots)
    if not 1 <= num <= num_slots:
        raise InvalidRequestError(f"slots: expected 1 to {num_slots}, got {num}")
    if len(content.step_numbers) != num or len(content.rewards) != num:
        raise InvalidRequestError(
            f"expected {num} step_numbers and rewards, one for each of slots; got "
            f"{len(content.step_numbers)} and {len(content.rewards)}"
        )
    return num


def _read_flags(content: policy_pb2.SlotObservations, name: str, num: int) -> list[bool]:
    flags: list[bool] = getattr(content, name)[:]
    if not flags:
        return [False] * num
    if len(flags) != num:
        raise InvalidRequestError(f"{name}: expected none or {num}, got {len(flags)}")
    return flags


def _find_places(slots: Array, counts: Sequence[int], messages: Sequence[Message]) -> Array:
    """Returns int64 [n]: the places of `slots`, of which each message has `counts`."""
    sizes = [len(places) for _, places in messages]
    limits = np.repeat(sizes, counts)
    is_inside = (slots >= 0) & (slots < limits)
    if is_inside.all():
        starts = np.repeat(np.cumsum(sizes) - sizes, counts)
        places: Array = np.concatenate([places for _, places in messages])[starts + slots]
        if len(set(places.tolist())) == len(places):
            return places
    raise InvalidRequestError(f"slots: expected distinct ones from 0 to {max(sizes) - 1}")


def _validate_values(given: Observations) -> None:
    if given.step_numbers.min() < 0 or given.step_numbers.max() >= 1 << 62:
        raise InvalidRequestError("step_numbers: expected 0 to 2**62")
    _require_bounded("rewards", given.rewards)
    has_result = given.terminated | given.truncated | (given.rewards != 0.0)
    if (given.is_first & has_result).any():
        raise InvalidRequestError("is_first: expected no reward and no end with it")
