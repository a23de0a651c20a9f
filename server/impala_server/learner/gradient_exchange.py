"""GradientExchange: what an update asks of the other learner ranks.

An interface. `impala_server.ranks.exchange` implements it over torch.distributed; a run with one
learner has none (None), and its updates are what they were without this file. The updater calls
it on a learner thread, in the same order on every rank. It knows no storage and no gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from impala_common.numerics.losses import LossOutputs


class BatchTotals(NamedTuple):
    """The batches of all ranks in one update.

    Attributes:
      num_steps: rows of fresh unrolls, padding rows not counted.
      num_unrolls: fresh unrolls.
    """

    num_steps: int
    num_unrolls: int


class GradientExchange(Protocol):
    """Sums over ranks. Every method is a meeting of all ranks: each calls it, or all end.

    Every rank gets the same bits. All methods raise RankLostError if a rank is gone.
    """

    @property
    def rank(self) -> int:
        """This rank, from 0."""

    @property
    def num_ranks(self) -> int:
        """Ranks of the run, at least 2."""

    def begin(self, num_steps: int, num_unrolls: int) -> BatchTotals:
        """Returns the totals of an update that each rank is about to make on its own batch."""

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over ranks of a small tensor, in its dtype and shape."""

    def combine_moments(
        self, count: Tensor, mean: Tensor, squares: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns count, mean and sum of squared deviations of the rows of all ranks together.

        Args:
          count: float64 []: rows of this rank, may be 0.
          mean: float64 [...]: their mean.
          squares: float64 [...]: their sum of squared deviations from that mean.
        """

    def is_wanted_by_all(self, is_wanted: bool) -> bool:
        """Returns whether every rank says so."""

    def reduce_step(
        self,
        parameters: Sequence[nn.Parameter],
        losses: LossOutputs,
        num_rows: Tensor,
        is_mean: bool,
    ) -> LossOutputs:
        """Makes gradients and losses of one optimizer step those of all ranks' rows together.

        Gradients are replaced in place: by their sum over ranks or, where losses are means over
        rows, by the mean over all rows. A parameter without a gradient on all ranks keeps none.

        Args:
          parameters: all parameters, in the same order on every rank.
          losses: of this rank's rows.
          num_rows: int64 []: rows of this rank that count, may be 0.
          is_mean: whether losses are means over rows, not sums.

        Returns:
          Losses and statistics over all rows. Roots, shares and ratios among the statistics are
          means over rows of those of the ranks.
        """

    def reduce_gradient(
        self, gradient: Sequence[Tensor], num_rows: Tensor, is_mean: bool
    ) -> list[Tensor]:
        """Returns a gradient over all ranks' rows; arguments as those of `reduce_step`."""
