"""PlayJudge: follows the slots of one client over all its streams, and notes what breaks a rule.

It sees messages in the order in which they are read, and hears which were answered.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from impala_conformance.environment import dtype_of
from impala_rl.v1 import policy_pb2, tensor_pb2

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
Note = Callable[[str, str], None]
"""Takes the name of a rule and what broke it."""


class UnreadableError(Exception):
    """A message that breaks its form: what it says of its slots cannot be judged."""


@dataclasses.dataclass
class JudgedSlot:
    """The newest observation of a slot.

    Attributes:
      number: of it.
      leaves: its bytes, without compression only.
      told: reward, terminated, truncated and is_first.
      is_waiting: whether it waits for an answer on the present stream.
      is_owed: whether it had none on an earlier one, and must come again.
    """

    number: int
    leaves: list[bytes]
    told: tuple[float, bool, bool, bool]
    is_waiting: bool = True
    is_owed: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it ended its episode."""
        return self.told[1] or self.told[2]


class PlayJudge:
    """One life of a client.

    Attributes:
      slots: what is known of each slot that was heard of.
      lost: slots whose newest observation opens no episode, and is of a slot not known.
      num_ends: episodes that have ended.
      num_taken: observations, without repetitions.
    """

    def __init__(self, hello: policy_pb2.PlayHello, note: Note) -> None:
        """Judges a client that has said `hello`; `note` is told of each violation."""
        self.slots: dict[int, JudgedSlot] = {}
        self.lost: set[int] = set()
        self.num_ends = 0
        self.num_taken = 0
        self._hello = hello
        self._note = note
        self._specs = list(hello.environment.observation_leaves)
        self._skip = 1 if hello.environment.frame_stack > 1 else 0
        self._may_be_lost: set[int] = set()
        self._must_open: set[int] = set()

    @property
    def waiting(self) -> set[int]:
        """Slots that wait for an answer."""
        return self.lost | {slot for slot, known in self.slots.items() if known.is_waiting}

    def begin_stream(self) -> None:
        """Says that the client has opened another stream: what waits has to come again."""
        self.lost.clear()
        for known in self.slots.values():
            known.is_owed |= known.is_waiting
            known.is_waiting = False

    def forget(self, slots: Sequence[int] | None = None) -> None:
        """Says that the server has forgotten slots (all): their clients may not know yet."""
        gone = set(range(self._hello.slot_count) if slots is None else slots)
        self._may_be_lost |= gone
        for slot in gone:
            self.slots.pop(slot, None)

    def say_lost(self, slots: Sequence[int]) -> None:
        """Says that `lost_slots` was sent: each of them must open an episode."""
        for slot in slots:
            self.slots.pop(slot, None)
            self.lost.discard(slot)
            self._must_open.add(slot)

    def say_answered(self, slots: Sequence[int]) -> None:
        """Says that the newest observations of slots were answered."""
        for slot in slots:
            self.slots[slot].is_waiting = False

    def take(self, message: policy_pb2.SlotObservations) -> None:
        """Takes a message.

        Raises:
          UnreadableError: it breaks its form, which was noted.
        """
        slots, num = list(message.slots), len(message.slots)
        self._check_lists(message, slots)
        leaves = self._split_leaves(message, num)
        for index, slot in enumerate(slots):
            flags = [
                bool(one[index]) if one else False
                for one in (message.terminated, message.truncated, message.is_first)
            ]
            told = (message.rewards[index], flags[0], flags[1], flags[2])
            self._take_slot(slot, message.step_numbers[index], leaves[index], told)

    def _take_slot(
        self, slot: int, number: int, leaves: list[bytes], told: tuple[float, bool, bool, bool]
    ) -> None:
        reward, terminated, truncated, is_first = told
        name = f"slot {slot}, observation {number}"
        if is_first and (reward != 0.0 or terminated or truncated):
            self._note("first-observation", f"{name}: is_first with reward {reward:g} or an end")
        if not math.isfinite(reward) or number < 0:
            self._note("message-numbers", f"{name}: reward {reward}")
        known = self.slots.get(slot)
        if known is not None and known.number == number:
            if (known.leaves, known.told) != (leaves, told):
                self._note("repetition", f"{name} came again with another content: {told}")
            known.is_waiting, known.is_owed = True, False
            return
        if known is None and not is_first:
            if slot in self._must_open:
                self._note("lost-slots", f"{name} has no is_first, after lost_slots")
            elif slot not in self._may_be_lost:
                self._note("opens-episode", f"{name} is the slot's first and has no is_first")
            self.lost.add(slot)
            return
        if known is not None:
            self._check_order(known, number, is_first, name)
        self.lost.discard(slot)
        self._may_be_lost.discard(slot)
        self._must_open.discard(slot)
        self.slots[slot] = JudgedSlot(number, leaves, told)
        self.num_taken += 1
        self.num_ends += self.slots[slot].is_over

    def _check_order(self, known: JudgedSlot, number: int, is_first: bool, name: str) -> None:
        if known.is_waiting or known.is_owed:
            rule = "unanswered" if known.is_owed else "one-at-a-time"
            self._note(rule, f"{name} came, and observation {known.number} had no answer yet")
        if number != known.number + 1:
            text = f"{name} came after observation {known.number}"
            self._note("step-numbers", f"expected numbers without a gap; {text}")
        if known.is_over and not is_first:
            self._note("after-end", f"{name} has no is_first, after the end of an episode")

    def _check_lists(self, message: policy_pb2.SlotObservations, slots: list[int]) -> None:
        num, count = len(slots), self._hello.slot_count
        if not num or len(set(slots)) < num or not all(0 <= slot < count for slot in slots):
            self._refuse("message-slots", f"expected distinct slots 0 .. {count - 1}, got {slots}")
        for name in ("step_numbers", "rewards"):
            size = len(getattr(message, name))
            if size != num:
                self._refuse("message-lengths", f"expected {num} {name}, got {size}")
        for name in ("terminated", "truncated", "is_first"):
            size = len(getattr(message, name))
            if size not in (0, num):
                self._refuse("message-lengths", f"expected {num} {name} or none, got {size}")

    def _split_leaves(self, message: policy_pb2.SlotObservations, num: int) -> list[list[bytes]]:
        """Returns the bytes of each leaf of each slot; [] where they are compressed."""
        specs, leaves = self._specs, list(message.leaves)
        if len(leaves) != len(specs):
            self._refuse("message-leaves", f"expected {len(specs)} leaves, got {len(leaves)}")
        if message.codec == tensor_pb2.CODEC_ZSTD:
            for leaf in leaves:
                if not leaf.startswith(_ZSTD_MAGIC):
                    self._refuse("message-leaves", f"expected zstd frames, got {leaf[:4]!r}")
            return [[] for _ in range(num)]
        if message.codec != tensor_pb2.CODEC_UNSPECIFIED:
            self._refuse("message-leaves", f"expected a codec, got {message.codec}")
        columns = [
            self._split_leaf(spec, leaf, num) for spec, leaf in zip(specs, leaves, strict=True)
        ]
        return [list(row) for row in zip(*columns, strict=True)]

    def _split_leaf(self, spec: tensor_pb2.TensorSpec, leaf: bytes, num: int) -> list[bytes]:
        dtype = dtype_of(spec)
        size = math.prod(spec.shape[self._skip :]) * dtype.itemsize
        if len(leaf) != num * size:
            text = f"{num * size} bytes of {spec.name}, {num} slots of {size} each"
            self._refuse("message-leaves", f"expected {text}; got {len(leaf)}")
        if dtype.kind == "f" and not np.isfinite(np.frombuffer(leaf, dtype)).all():
            self._note("message-numbers", f"expected finite numbers of {spec.name}")
        if dtype.kind == "b" and set(leaf) - {0, 1}:
            self._note("message-bools", f"expected 0 and 1 of {spec.name}, got {set(leaf)}")
        return [leaf[place * size : (place + 1) * size] for place in range(num)]

    def _refuse(self, rule: str, text: str) -> None:
        self._note(rule, text)
        raise UnreadableError(text)
