"""ObservationDecoder: turns SlotObservations into checked arrays.

Called by the streams of clients, on the event loop, before the policy engine sees anything. No
gRPC.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from impala_common.codec.tensors import plain_bytes
from impala_common.codec.unrolls import require_bounded
from impala_common.errors import InvalidRequestError, InvalidUnrollError
from impala_common.spec.specs import EnvironmentSpec
from impala_policy_server.slot_arrays import Array
from impala_rl.v1 import policy_pb2


class Observations(NamedTuple):
    """The observations of one message.

    Attributes:
      slots: int64 [n]: distinct slots of the client.
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

    def decode(self, message: policy_pb2.SlotObservations, num_slots: int) -> Observations:
        """Returns the observations of a client with `num_slots` slots.

        Raises:
          InvalidRequestError: names the field that breaks the contract.
        """
        slots = np.array(message.slots, np.int64)
        num = len(slots)
        if not 1 <= num <= num_slots:
            raise InvalidRequestError(f"slots: expected 1 to {num_slots}, got {num}")
        if slots.min() < 0 or slots.max() >= num_slots or len(set(message.slots)) != num:
            raise InvalidRequestError(f"slots: expected distinct ones from 0 to {num_slots - 1}")
        if len(message.step_numbers) != num or len(message.rewards) != num:
            raise InvalidRequestError(
                f"expected {num} step_numbers and rewards, one for each of slots; got "
                f"{len(message.step_numbers)} and {len(message.rewards)}"
            )
        step_numbers = np.array(message.step_numbers, np.int64)
        if step_numbers.min() < 0 or step_numbers.max() >= 1 << 62:
            raise InvalidRequestError("step_numbers: expected 0 to 2**62")
        rewards = np.array(message.rewards, np.float32)
        _require_bounded("rewards", rewards)
        terminated = _flags("terminated", message.terminated, num)
        truncated = _flags("truncated", message.truncated, num)
        is_first = _flags("is_first", message.is_first, num)
        if (is_first & (terminated | truncated | (rewards != 0.0))).any():
            raise InvalidRequestError("is_first: expected no reward and no end with it")
        leaves = self._decode_leaves(message, num)
        return Observations(slots, step_numbers, leaves, rewards, terminated, truncated, is_first)

    def _decode_leaves(self, message: policy_pb2.SlotObservations, num: int) -> dict[str, Array]:
        if len(message.leaves) != len(self._leaves):
            raise InvalidRequestError(
                f"leaves: expected {len(self._leaves)}, got {len(message.leaves)}"
            )
        leaves = {}
        for (name, dtype, shape), data in zip(self._leaves, message.leaves, strict=True):
            num_bytes = num * math.prod(shape) * dtype.itemsize
            try:
                plain = plain_bytes(message.codec, data, name, num_bytes)
            except InvalidUnrollError as error:
                raise InvalidRequestError(str(error)) from error
            if dtype == np.bool_ and plain.translate(None, b"\0\1"):
                raise InvalidRequestError(f"{name}: expected booleans (0 or 1), got other bytes")
            array = np.frombuffer(plain, dtype).reshape(num, *shape)
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


def _flags(name: str, values: object, num: int) -> Array:
    flags = np.array(values, np.bool_)
    if not flags.size:
        return np.zeros(num, np.bool_)
    if len(flags) != num:
        raise InvalidRequestError(f"{name}: expected none or {num}, got {len(flags)}")
    return flags
