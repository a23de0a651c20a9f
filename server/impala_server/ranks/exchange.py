"""TorchExchange: sums over learner ranks inside an update, as a GradientExchange.

Called by the updater on the rank loop's thread. Gradients of all parameters, losses, statistics and
the number of rows travel in one flat tensor: one meeting for each optimizer step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from impala_common.numerics.losses import NUM_STATISTICS, LossOutputs
from impala_server.learner.gradient_exchange import BatchTotals
from impala_server.ranks.group import RankGroup

_NUM_LOSSES = len(LossOutputs._fields) - NUM_STATISTICS


class TorchExchange:
    """The sums of one rank.

    Attributes:
      agreed: totals of the next update, where the ranks have told each other already; `begin`
        takes them, and without them asks.
    """

    def __init__(self, group: RankGroup) -> None:
        """Sums over the ranks of `group`."""
        self._group = group
        self._flat: Tensor | None = None
        self.agreed: BatchTotals | None = None

    @property
    def rank(self) -> int:
        """This rank."""
        return self._group.rank

    @property
    def num_ranks(self) -> int:
        """Ranks of the run."""
        return self._group.num_ranks

    def begin(self, num_steps: int, num_unrolls: int) -> BatchTotals:
        """Returns the totals of all ranks' batches."""
        agreed, self.agreed = self.agreed, None
        if agreed is not None:
            return agreed
        return BatchTotals(*self._group.add_up(torch.tensor([num_steps, num_unrolls])).tolist())

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over ranks."""
        return self._group.add_up(values.detach().clone())

    def combine_moments(
        self, count: Tensor, mean: Tensor, squares: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the moments of all ranks' rows, by the formula of `RunningMoments.update`."""
        size = mean.numel()
        row = torch.cat((count.view(1), mean.flatten(), squares.flatten()))
        whole, *others = self._group.gather(row).unbind()
        total, mean_all, squares_all = whole[0], whole[1 : 1 + size], whole[1 + size :]
        for one in others:  # in the order of ranks, so that every rank gets the same bits
            number = one[0]
            both = (total + number).clamp(min=1.0)
            difference = one[1 : 1 + size] - mean_all
            squares_all = squares_all + one[1 + size :]
            squares_all = squares_all + difference.square() * (total * number / both)
            mean_all = mean_all + difference * (number / both)
            total = total + number
        return total, mean_all.view_as(mean), squares_all.view_as(squares)

    def is_wanted_by_all(self, is_wanted: bool) -> bool:
        """Returns whether every rank says so."""
        return int(self._group.add_up(torch.tensor(int(is_wanted)))) == self.num_ranks

    @torch.no_grad()
    def reduce_step(
        self,
        parameters: Sequence[nn.Parameter],
        losses: LossOutputs,
        num_rows: Tensor,
        is_mean: bool,
    ) -> LossOutputs:
        """Makes gradients and losses those of all ranks' rows together."""
        gradients = [parameter.grad for parameter in parameters]
        present = torch.tensor([gradient is not None for gradient in gradients])
        values = torch.stack([loss.detach().float() for loss in losses])
        weight = num_rows.to(values.dtype)
        # A mean over this rank's rows counts as often as it has rows.
        weights = torch.ones_like(values) if not is_mean else weight.expand_as(values).clone()
        weights[_NUM_LOSSES:] = weight
        tail = torch.cat((values * weights, weight.view(1), present.to(values)))
        size = sum(parameter.numel() for parameter in parameters)
        flat = self._make_flat(size + len(tail), values)
        views = _views(flat, parameters)
        flat[:size].zero_()
        own = [gradient for gradient in gradients if gradient is not None]
        if own:
            torch._foreach_copy_(
                [view for view, one in zip(views, gradients, strict=True) if one is not None], own
            )
        if is_mean:
            flat[:size].mul_(weight)
        flat[size:].copy_(tail)
        self._group.add_up(flat)
        self._group.num_bytes += flat.numel() * flat.element_size()
        tail = flat[size:].clone()
        rows = tail[len(values)].clamp(min=1.0)
        if is_mean:
            flat[:size].div_(rows)
        is_present = (tail[len(values) + 1 :] > 0).tolist()
        for parameter, view, has_gradient in zip(parameters, views, is_present, strict=True):
            parameter.grad = view if has_gradient else None
        reduced = tail[: len(values)]
        reduced[_NUM_LOSSES:] /= rows
        if is_mean:
            reduced[:_NUM_LOSSES] /= rows
        return LossOutputs(*reduced.unbind())

    @torch.no_grad()
    def reduce_gradient(
        self, gradient: Sequence[Tensor], num_rows: Tensor, is_mean: bool
    ) -> list[Tensor]:
        """Returns a gradient over all ranks' rows."""
        weight = num_rows.to(gradient[0].dtype)
        parts = [one.flatten() * weight if is_mean else one.flatten() for one in gradient]
        flat = self._group.add_up(torch.cat([*parts, weight.view(1)]))
        if is_mean:
            flat /= flat[-1].clamp(min=1.0)
        return _views(flat, gradient)

    def _make_flat(self, size: int, like: Tensor) -> Tensor:
        """Returns the buffer; gradients of the step before are views into it, and over."""
        if self._flat is None or self._flat.numel() != size:
            self._flat = torch.empty(size, dtype=like.dtype, device=like.device)
        return self._flat


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Returns views into `flat`, one after the other, with the shapes of `like`."""
    sizes = [one.numel() for one in like]
    pieces = torch.split(flat[: sum(sizes)], sizes)
    return [piece.view(one.shape) for piece, one in zip(pieces, like, strict=True)]
