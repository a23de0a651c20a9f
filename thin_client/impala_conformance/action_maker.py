"""Made-up actions in the form that a client's hello declares; numpy only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from impala_conformance.environment import Array, dtype_of, find_mask
from impala_rl.v1 import policy_pb2, spec_pb2

MAX_ROUNDS = 64
"""Most values of a component that `edge` goes through."""


class ActionMaker:
    """Draws legal actions, or goes through all values of them."""

    def __init__(self, environment: spec_pb2.EnvironmentSpec) -> None:
        """Draws for `environment`."""
        self._parts = list(environment.action.parts)
        self._mask_leaf = find_mask(environment)
        self._random = np.random.default_rng(0)

    @property
    def num_rounds(self) -> int:
        """Rounds in which `edge` has been through the values of every component."""
        sizes = [size for part in self._parts for size in part.sizes]
        return min(max([3, *sizes]), MAX_ROUNDS)

    def make(self, leaves: list[bytes], edge: int | None = None) -> list[bytes]:
        """Returns the bytes of each part of one slot's action.

        Args:
          leaves: of the slot's observation; the mask, where there is one, forbids actions.
          edge: number of a round: takes the values in turn, bounds included; None: draws.
        """
        mask = None if self._mask_leaf is None else np.frombuffer(leaves[self._mask_leaf], np.uint8)
        offset, parts = 0, []
        for part in self._parts:
            num = math.prod(part.tensor.shape)
            if part.kind == spec_pb2.ACTION_KIND_CATEGORICAL:
                values = self._choose(part, mask, offset, edge)
                offset += sum(part.sizes)
            elif part.kind == spec_pb2.ACTION_KIND_BERNOULLI:
                values = self._random.integers(0, 2, num)
                values = values if edge is None else np.full(num, edge % 2)
            else:
                values = self._draw_numbers(part, edge)
            parts.append(values.astype(dtype_of(part.tensor)).tobytes())
        return parts

    def _choose(
        self, part: spec_pb2.ActionPart, mask: Array | None, offset: int, edge: int | None
    ) -> Array:
        """Returns int64 [D]: a legal choice of each component."""
        chosen = []
        for size, start in zip(part.sizes, part.starts, strict=True):
            legal = np.arange(size)
            if mask is not None and mask[offset : offset + size].any():
                legal = np.flatnonzero(mask[offset : offset + size])
            if edge is None:
                choice = int(self._random.choice(legal))
            else:
                choice = int(legal[(edge * max(size // MAX_ROUNDS, 1)) % len(legal)])
                choice = size - 1 if edge == MAX_ROUNDS - 1 and size - 1 in legal else choice
            chosen.append(choice + start)
            offset += size
        return np.array(chosen, np.int64)

    def _draw_numbers(self, part: spec_pb2.ActionPart, edge: int | None) -> Array:
        """Returns float64 [D], within the bounds."""
        lows, highs = np.array(part.lows), np.array(part.highs)
        finite_lows = np.where(np.isfinite(lows), lows, np.where(np.isfinite(highs), highs, 0) - 1)
        finite_highs = np.where(np.isfinite(highs), highs, finite_lows + 1)
        share: Any = self._random.random(len(lows)) if edge is None else (edge % 3) / 2
        values: Array = finite_lows + share * (finite_highs - finite_lows)
        return values


def join_actions(
    slots: list[int], numbers: list[int], parts: list[list[bytes]], num_logits: int, version: int
) -> policy_pb2.SlotActions:
    """Returns the actions of slots as one message.

    Args:
      slots: n.
      numbers: of the observations.
      parts: of each slot.
      num_logits: P; 0: none were asked for.
      version: of the weights.
    """
    return policy_pb2.SlotActions(
        slots=slots,
        step_numbers=numbers,
        parts=[b"".join(column) for column in zip(*parts, strict=True)],
        policy_version=version,
        logits=bytes(4 * len(slots) * num_logits),
    )
