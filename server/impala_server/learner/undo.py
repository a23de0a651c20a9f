"""Undo: copies of what an update changes, to put back where the update cannot be finished.

Owned by the updater. An update of one optimizer step is checked before the step is made, so
that only the running statistics have to be put back. An update of several steps is all or
nothing: weights and optimizer are put back too. Copies are made in the same memory each time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Undo:
    """The tensors as they were at the last `save`."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, statistics: list[Tensor]
    ) -> None:
        """Knows what to copy; nothing is copied yet.

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

    @property
    def is_whole(self) -> bool:
        """Whether weights and optimizer were saved too."""
        return self._is_whole

    @torch.no_grad()
    def save(self, is_whole: bool) -> None:
        """Copies the statistics and, if `is_whole`, weights and optimizer."""
        self._is_whole = is_whole
        live = self._live()
        if len(self._copies) != len(live):
            self._copies = [torch.empty_like(tensor) for tensor in live]
        if live:
            torch._foreach_copy_(self._copies, live)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts back what was copied."""
        live = self._live()
        if len(live) > len(self._copies):  # the optimizer has made its first step since
            self._optimizer.state.clear()
            live = self._live()
        if live:
            torch._foreach_copy_(live, self._copies)

    def _live(self) -> list[Tensor]:
        if not self._is_whole:
            return self._statistics
        state = self._optimizer.state
        own = [value for one in self._parameters for value in state.get(one, {}).values()]
        return self._tensors + own
