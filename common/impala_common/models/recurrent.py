"""An LSTM over unrolls in which episodes end anywhere.

State is reset at each first row, before that row's observation is consumed. Rows
between two resets of any column run through one fused LSTM call, so an unroll in
which nothing ends costs one call, not T. Finding the resets reads `is_first` on the
host: one wait for the device per forward pass on a GPU.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from impala_common.models.contract import AgentState
from impala_common.models.initialisation import initialise_lstm
from impala_common.specs import TensorSpec


class RecurrentCore(nn.Module):
    """One-layer LSTM with resets; its state is (h, c), each [L, B, H] with L = 1."""

    def __init__(self, num_features: int, width: int, init_method: str) -> None:
        super().__init__()
        self.lstm = nn.LSTM(num_features, width)
        self.width = width
        initialise_lstm(self.lstm, init_method)

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns the specs of h and c."""
        return tuple(
            TensorSpec(
                f"initial_agent_state/{index}", (self.lstm.num_layers, self.width), "float32"
            )
            for index in range(2)
        )

    def forward(
        self, features: Tensor, is_first: Tensor, state: AgentState
    ) -> tuple[Tensor, AgentState]:
        """Runs the LSTM over all rows.

        Args:
          features: float32 [T, B, F].
          is_first: bool [T, B]: state is set to 0 before row t where is_first[t].
          state: (h, c) before row 0.

        Returns:
          float32 [T, B, H] and (h, c) after the last row.
        """
        if is_first.dtype != torch.bool:
            raise TypeError(f"is_first must be bool, got {is_first.dtype}")
        hidden, cell = state
        num_rows = features.shape[0]
        reset_rows = is_first.any(dim=1).nonzero().flatten().tolist()
        starts = [row for row in reset_rows if row > 0]
        bounds = [0, *starts, num_rows]
        resets = set(reset_rows)

        segments = []
        for start, end in itertools.pairwise(bounds):
            if start in resets:
                columns = is_first[start].unsqueeze(-1)  # [B, 1], over L and H
                hidden = hidden.masked_fill(columns, 0.0)
                cell = cell.masked_fill(columns, 0.0)
            outputs, (hidden, cell) = self.lstm(features[start:end], (hidden, cell))
            segments.append(outputs)
        outputs = segments[0] if len(segments) == 1 else torch.cat(segments)
        return outputs, (hidden, cell)
