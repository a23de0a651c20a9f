"""Header: what each rank tells all others before an update, as a row of integers.

The control word is rank 0's `orders`: every rank reads the same ones before the same update. Pure.
"""

from __future__ import annotations

import dataclasses
import enum

import torch
from torch import Tensor


class Orders(enum.IntFlag):
    """The control word, from rank 0 to all."""

    NONE = 0
    PAUSE = 1
    """No update now; the ranks meet again."""
    CHANGES = 2
    """Changes of parameters, or a rollback, follow: make them before the update."""
    REPORT = 4
    """All ranks exchange their reports next."""
    GO_WITHOUT = 8
    """Make the update without the ranks that have no batch."""
    GIVE_UP = 16
    """A rank has been without a batch for too long: end."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The row of one rank.

    Attributes:
      is_ready: whether it has a batch.
      stops: whether it was told to end.
      orders: rank 0's control word; 0 from others.
      policy_version: updates made; equal on all ranks.
      num_steps: rows of its batch that count; 0 without one.
      num_unrolls: fresh unrolls of its batch.
      num_episodes: episodes that ended in its batch.
      compute_us: microseconds of its own part of the last update.
    """

    is_ready: int = 0
    stops: int = 0
    orders: int = 0
    policy_version: int = 0
    num_steps: int = 0
    num_unrolls: int = 0
    num_episodes: int = 0
    compute_us: int = 0

    def to_row(self) -> Tensor:
        """Returns int64 [number of fields]."""
        return torch.tensor(dataclasses.astuple(self))

    @classmethod
    def from_rows(cls, rows: Tensor) -> list[Header]:
        """Returns the headers of all ranks: rows of int64 [N, number of fields]."""
        return [cls(**dict(zip(cls.__slots__, row, strict=True))) for row in rows.tolist()]
