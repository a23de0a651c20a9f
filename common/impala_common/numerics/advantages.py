"""Normalises advantages over a batch or a part: here, or over those of all learner ranks. Pure."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]
"""A sum here -> the sum over all learner ranks."""


@torch.no_grad()
def normalise(advantages: Tensor, is_padding: Tensor, total: Total | None) -> Tensor:
    """Returns advantages with mean 0 and deviation 1 over the rows that count; 0 on padding rows.

    Args:
      advantages: float32 [T, B]: 0 on padding rows.
      is_padding: bool [T, B].
      total: makes mean and deviation those over the rows of all ranks; None: there is one.
    """
    counts = ~is_padding
    num_rows, sum_ = counts.sum(), advantages.sum()
    if total is not None:
        num_rows, sum_ = total(torch.stack((num_rows.double(), sum_.double())))
        sum_ = sum_.to(advantages.dtype)
    num_rows = num_rows.clamp_(min=1)
    centred = (advantages - sum_ / num_rows).where(counts, 0.0)
    squares = centred.square().sum()
    if total is not None:
        squares = total(squares)
    return centred / ((squares / num_rows).sqrt() + 1e-8)
