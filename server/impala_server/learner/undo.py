"""Undo: copies of tensors that an update changes, restored if the update fails.

Owned by the updater. An update of one optimizer step is checked before the step, so only the
running statistics must be restored. An update of several steps is all or nothing: weights and
optimizer are restored too. Copies reuse the same memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Undo:
    """The tensors of the last `save`."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, statistics: list[Tensor]
    ) -> None:
        """Prepares; nothing is copied yet.

        Args:
          model: its tensors are copied by `save(True)`.
          optimizer: likewise.
          statistics: tensors of `model` that are always copied.
        """
        self._tensors = [value.detach() for value in model.state_dict().values()]
        self._parameters = list(model.parameters())
        self._optimizer = optimizer
        self._statistics = statistics
        self._copies: list[Tensor] = []
        self._is_whole = False
        self._has_state: set[Tensor] = set()

    @property
    def is_whole(self) -> bool:
        """Whether weights and optimizer were saved too."""
        return self._is_whole

    @torch.no_grad()
    def save(self, is_whole: bool) -> None:
        """Copies the statistics and, if `is_whole`, weights and optimizer."""
        self._is_whole = is_whole
        self._has_state = {one for one in self._parameters if one in self._optimizer.state}
        live = self._live()
        # A rollback may have brought the optimizer's tensors in another order.
        if [one.shape for one in self._copies] != [one.shape for one in live]:
            self._copies = [torch.empty_like(tensor) for tensor in live]
        if live:
            torch._foreach_copy_(self._copies, live)

    @torch.no_grad()
    def restore(self) -> None:
        """Restores the copies."""
        if self._is_whole:  # a parameter's first step has added tensors since
            for parameter in self._parameters:
                if parameter not in self._has_state:
                    self._optimizer.state.pop(parameter, None)
        live = self._live()
        if live:
            torch._foreach_copy_(live, self._copies)

    def _live(self) -> list[Tensor]:
        if not self._is_whole:
            return self._statistics
        state = self._optimizer.state
        own = [value for one in self._parameters for value in state.get(one, {}).values()]
        return self._tensors + own
