"""UpdateResult: the result of one update, and the sums over its optimizer steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from impala_common.numerics.losses import NUM_STATISTICS, LossOutputs

UPDATE_VALUES = (*LossOutputs._fields, "grad_norm", "clipped_steps")
"""Names of `UpdateResult.values`, in order; clipped_steps: share of steps whose gradient was
scaled down."""
_KL = UPDATE_VALUES.index("kl")
_STATISTICS = slice(len(LossOutputs._fields) - NUM_STATISTICS, len(LossOutputs._fields))
_GRAD_NORM = UPDATE_VALUES.index("grad_norm")


class GradientNorms(NamedTuple):
    """Gradient norms of one optimizer step, by loss; scalars."""

    policy: Tensor
    value: Tensor


class UpdateResult(NamedTuple):
    """Result of one update.

    Attributes:
      is_applied: False if a loss or gradient was not finite.
      values: float32 [len(UPDATE_VALUES)]: losses and statistics, on the device. Losses and
        gradient norm are means over its optimizer steps; statistics are means over the last step of
        each pass at least.
      damage: damage of the weights afterwards, in words; "" for none.
      num_steps: optimizer steps made.
      num_passes: passes begun.
      last_kl: KL(mu || pi) in nats of the last pass, with that which ended the passes; a scalar.
      gradient_norms: of the first step; None in most updates.
    """

    is_applied: bool
    values: Tensor
    damage: str
    num_steps: int
    num_passes: int
    last_kl: Tensor
    gradient_norms: GradientNorms | None = None

    @property
    def loss(self) -> Tensor:
        """Total loss, a scalar."""
        return self.values[0]

    @property
    def grad_norm(self) -> Tensor:
        """Gradient norm before clipping, a scalar."""
        return self.values[_GRAD_NORM]


class UpdateTally:
    """Sums over the steps of one update.

    Attributes:
      num_passes: passes begun.
      num_steps: optimizer steps made.
      is_finite: whether losses and gradients were finite at the last `check`.
      damage: damage of the weights, in words.
      gradient_norms: of the first step.
    """

    def __init__(self, device: torch.device) -> None:
        """Starts without steps, on the learner's device."""
        self._sums = torch.zeros(len(UPDATE_VALUES), device=device)
        self._num_added = self._num_with_statistics = 0
        self._kls: list[Tensor] = []
        self._kls_before: list[Tensor] = []
        self.num_passes = self.num_steps = 0
        self.is_finite = True
        self.damage = ""
        self.gradient_norms: GradientNorms | None = None

    def begin_pass(self) -> None:
        """Counts a pass."""
        self.num_passes += 1
        self._kls_before, self._kls = self._kls, []

    def add(
        self,
        losses: LossOutputs,
        grad_norm: Tensor,
        max_grad_norm: float,
        has_statistics: bool = True,
    ) -> None:
        """Adds a step before it is made; does not wait for the device.

        Without `has_statistics` the statistics of `losses` are ignored.
        """
        with torch.no_grad():
            is_clipped = (grad_norm > max_grad_norm).to(grad_norm.dtype)
            self._sums += torch.stack([*losses, grad_norm, is_clipped])
        self._num_added += 1
        if has_statistics:
            self._num_with_statistics += 1
            self._kls.append(losses.kl)

    def note_kl(self, kl: float) -> None:
        """Notes the divergence that ended the passes, of a step that is not made."""
        self._kls.append(self._sums.new_tensor(kl))

    def check(self) -> bool:
        """Waits for the device; returns whether all losses and gradient norms were finite."""
        self.is_finite = bool(torch.isfinite(self._sums[0] + self._sums[_GRAD_NORM]))
        return self.is_finite

    def make_result(self, is_applied: bool) -> UpdateResult:
        """Returns the means over all steps added."""
        values = self._sums / max(self._num_added, 1)
        values[_STATISTICS] = self._sums[_STATISTICS] / max(self._num_with_statistics, 1)
        kls = self._kls or self._kls_before or [self._sums[_KL]]
        return UpdateResult(
            is_applied,
            values,
            self.damage,
            self.num_steps if is_applied else 0,
            self.num_passes,
            torch.stack(kls).mean(),
            self.gradient_norms,
        )
