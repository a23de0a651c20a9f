"""An LSTM or GRU over unrolls in which episodes end anywhere.

State is reset at each first row, before that row's observation is consumed. There are two methods,
equal except for rounding, and the faster one is used:

- segments: rows between two resets of any column run through one fused call, so that an unroll
  without resets takes one call, not T;
- rows (`recurrent_rows`): a loop over rows, whose time does not depend on the number of resets.

Finding the resets reads `is_first` on the host: one wait for the device per forward pass of several
rows on a GPU, where fused calls are always used.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from impala_common.errors import ConfigError
from impala_common.models.contract import AgentState
from impala_common.models.initialisation import initialise_recurrent
from impala_common.models.recurrent_rows import GruRows, LstmRows
from impala_common.spec.specs import TensorSpec

_FUSED_WIDTH = 256
"""Least width at which fused LSTM calls are faster even if every row is its own segment."""


class RecurrentCore(nn.Module):
    """One recurrent layer with resets.

    Its state is (h, c) for an LSTM and (h,) for a GRU, each [L, B, H] with L = 1.
    """

    def __init__(self, kind: str, num_features: int, width: int, init_method: str) -> None:
        """Makes a layer of `kind`, "lstm" or "gru", from `num_features` to `width`."""
        super().__init__()
        self.layer: nn.LSTM | nn.GRU
        if kind == "lstm":
            self.layer = nn.LSTM(num_features, width)
        elif kind == "gru":
            self.layer = nn.GRU(num_features, width)
        else:
            raise ConfigError("recurrence", kind, "none, lstm or gru")
        self.num_states = 2 if kind == "lstm" else 1
        self.width = width
        initialise_recurrent(self.layer, init_method)

    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        """Returns the specs of h and, for an LSTM, c."""
        return tuple(
            TensorSpec(
                f"initial_agent_state/{index}", (self.layer.num_layers, self.width), "float32"
            )
            for index in range(self.num_states)
        )

    def forward(
        self, features: Tensor, is_first: Tensor, state: AgentState
    ) -> tuple[Tensor, AgentState]:
        """Runs the layer over all rows.

        Args:
          features: float32 [T, B, F].
          is_first: bool [T, B]: state is set to 0 before row t where is_first[t].
          state: (h, c) or (h,) before row 0.

        Returns:
          float32 [T, B, H] and the state after the last row.
        """
        if is_first.dtype != torch.bool:
            raise TypeError(f"is_first must be bool, got {is_first.dtype}")
        num_rows = features.shape[0]
        if num_rows == 1:  # an actor's step: no resets to find, and this form can be exported
            return self._run(features, _reset(state, is_first[0]))
        reset_rows = is_first.any(dim=1).nonzero().flatten().tolist()
        starts = [row for row in reset_rows if row > 0]
        bounds = [0, *starts, num_rows]
        resets = set(reset_rows)
        if features.device.type == "cpu" and self._prefers_rows(num_rows, len(starts) + 1):
            return self._run_rows(features, is_first, state, resets)

        segments = []
        for start, end in itertools.pairwise(bounds):
            if start in resets:
                state = _reset(state, is_first[start])
            outputs, state = self._run(features[start:end], state)
            segments.append(outputs)
        outputs = segments[0] if len(segments) == 1 else torch.cat(segments)
        return outputs, state

    def _prefers_rows(self, num_rows: int, num_segments: int) -> bool:
        """Returns whether the loop over rows takes less time on a CPU, forward and back.

        Measured with torch 2.13 on one core, T 32 and 80, B 16 and 32, H 32 to 256: oneDNN's LSTM
        takes a third of the loop's time per row, but each call has a fixed cost, which matters less
        for wide layers; torch's GRU is slower than the loop from the second row on.
        """
        if isinstance(self.layer, nn.GRU):
            return True
        return num_segments * _FUSED_WIDTH > num_rows * self.width and num_segments > 1

    def _run_rows(
        self, features: Tensor, is_first: Tensor, state: AgentState, reset_rows: set[int]
    ) -> tuple[Tensor, AgentState]:
        """Runs the loop over rows; see `forward`."""
        input_weight, weight, input_bias, bias = self.layer.all_weights[0]
        outputs: Tensor
        last: tuple[Tensor, ...]
        if isinstance(self.layer, nn.LSTM):
            from_input = functional.linear(features, input_weight, input_bias + bias)
            outputs, *last = LstmRows.apply(  # type: ignore[no-untyped-call]
                from_input, weight, state[0][0], state[1][0], is_first, reset_rows
            )
        else:
            from_input = functional.linear(features, input_weight, input_bias)
            outputs, *last = GruRows.apply(  # type: ignore[no-untyped-call]
                from_input, weight, bias, state[0][0], is_first, reset_rows
            )
        return outputs, tuple(tensor.unsqueeze(0) for tensor in last)

    def _run(self, features: Tensor, state: AgentState) -> tuple[Tensor, AgentState]:
        """Runs the layer over rows without resets."""
        outputs: Tensor
        if isinstance(self.layer, nn.LSTM):
            hidden, cell = state
            outputs, state = self.layer(features, (hidden, cell))
            return outputs, state
        (hidden,) = state
        outputs, hidden = self.layer(features, hidden)
        return outputs, (hidden,)


def _reset(state: AgentState, is_first: Tensor) -> AgentState:
    """Returns the state with 0 in the columns where bool [B] `is_first`."""
    columns = is_first.unsqueeze(-1)  # [B, 1], over L and H
    return tuple(tensor.masked_fill(columns, 0.0) for tensor in state)
