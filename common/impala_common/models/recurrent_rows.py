"""LSTM and GRU row by row, with resets of any column at any row and hand-written gradients.

Called by `RecurrentCore` on a CPU where fused calls would be too short to be faster. The loops
compute only the product with the state: the inputs' part is computed for all rows before, and the
weights' gradient for all rows after. Going forward, a row
costs about eight small operations, going back seven; autograd over the same loop takes
twice as long. Formulas and the order of gates are torch's.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LstmRows(torch.autograd.Function):
    """The LSTM; `apply(from_input, weight, hidden, cell, is_first, reset_rows)`.

        i, f, o = sigmoid(...),  n = tanh(...)      of from_input[t] + weight h_{t-1}
        c_t = f c_{t-1} + i n
        h_t = o tanh(c_t)

    Args of apply:
      from_input: float32 [T, B, 4H]: the inputs' and biases' part of the gates.
      weight: float32 [4H, H]: of the state.
      hidden, cell: float32 [B, H]: h and c before row 0.
      is_first: bool [T, B]: state is 0 before row t where is_first[t].
      reset_rows: rows of is_first in which any is set.

    Returns h of all rows [T, B, H], and h and c after the last one [B, H].
    """

    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's context
        from_input: Tensor,
        weight: Tensor,
        hidden: Tensor,
        cell: Tensor,
        is_first: Tensor,
        reset_rows: Set[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (outputs, hidden, cell); see the class."""
        num_rows, num_columns, _ = from_input.shape
        width = hidden.shape[1]
        gates = from_input.clone()
        # By row: h and c before it (after a reset), tanh(c) and h after it.
        hiddens, cells, squashed, outputs = (
            from_input.new_empty(num_rows, num_columns, width) for _ in range(4)
        )
        transposed = weight.t()
        for t in range(num_rows):
            if t in reset_rows:
                columns = is_first[t].unsqueeze(-1)
                hidden, cell = hidden.masked_fill(columns, 0.0), cell.masked_fill(columns, 0.0)
            hiddens[t], cells[t] = hidden, cell
            row = gates[t].addmm_(hidden, transposed)
            entry, forget, candidate, exit_ = row.chunk(4, dim=1)
            row[:, : 2 * width].sigmoid_()
            candidate.tanh_()
            exit_.sigmoid_()
            cell = (forget * cell).addcmul_(entry, candidate)
            hidden = torch.mul(exit_, torch.tanh(cell, out=squashed[t]), out=outputs[t])
        ctx.save_for_backward(weight, is_first, gates, hiddens, cells, squashed)
        ctx.reset_rows = reset_rows
        return outputs, hidden.clone(), cell.clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # Any: torch's context
        grad_outputs: Tensor,
        grad_hidden: Tensor,
        grad_cell: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Returns gradients of the arguments of `apply`, None for the last two."""
        weight, is_first, gates, hiddens, cells, squashed = ctx.saved_tensors
        entry, forget, candidate, exit_ = gates.chunk(4, dim=2)
        # Derivatives of c_t (first three) and h_t by each gate's sum, for all rows at once.
        slopes = torch.stack(
            (
                candidate * entry * (1 - entry),
                cells * forget * (1 - forget),
                entry * (1 - candidate.square()),
                squashed * exit_ * (1 - exit_),
            ),
            dim=2,
        )
        slopes_of_cell = exit_ * (1 - squashed.square())  # of h_t by c_t
        for t in range(len(gates) - 1, -1, -1):
            grad_hidden = grad_outputs[t] + grad_hidden
            grad_cell = grad_cell.addcmul(grad_hidden, slopes_of_cell[t])
            slopes[t, :, :3].mul_(grad_cell.unsqueeze(1))
            slopes[t, :, 3].mul_(grad_hidden)
            grad_hidden = slopes[t].flatten(1) @ weight
            grad_cell = grad_cell * forget[t]
            if t in ctx.reset_rows:
                columns = is_first[t].unsqueeze(-1)
                grad_hidden = grad_hidden.masked_fill(columns, 0.0)
                grad_cell = grad_cell.masked_fill(columns, 0.0)
        grad_input = slopes.flatten(2)
        grad_weight = grad_input.flatten(0, 1).t() @ hiddens.flatten(0, 1)
        return grad_input, grad_weight, grad_hidden, grad_cell, None, None


class GruRows(torch.autograd.Function):
    """The GRU; `apply(from_input, weight, bias, hidden, is_first, reset_rows)`.

        r, z = sigmoid(from_input[t] + weight h_{t-1} + bias)
        n    = tanh(from_input[t] + r (weight h_{t-1} + bias))
        h_t  = n + z (h_{t-1} - n)

    Args of apply:
      from_input: float32 [T, B, 3H]: the inputs' and their biases' part of the gates.
      weight, bias: float32 [3H, H] and [3H]: of the state.
      hidden: float32 [B, H]: h before row 0.
      is_first: bool [T, B]: state is 0 before row t where is_first[t].
      reset_rows: rows of is_first in which any is set.

    Returns h of all rows [T, B, H], and h after the last one [B, H].
    """

    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's context
        from_input: Tensor,
        weight: Tensor,
        bias: Tensor,
        hidden: Tensor,
        is_first: Tensor,
        reset_rows: Set[int],
    ) -> tuple[Tensor, Tensor]:
        """Returns (outputs, hidden); see the class."""
        num_rows, num_columns, _ = from_input.shape
        width = hidden.shape[1]
        gates, candidates = (
            part.clone() for part in torch.split(from_input, [2 * width, width], dim=2)
        )
        # By row: h before it (after a reset), the state's part of n, h after it.
        hiddens, recalled, outputs = (
            from_input.new_empty(num_rows, num_columns, width) for _ in range(3)
        )
        transposed = weight.t()
        for t in range(num_rows):
            if t in reset_rows:
                hidden = hidden.masked_fill(is_first[t].unsqueeze(-1), 0.0)
            hiddens[t] = hidden
            from_hidden = torch.addmm(bias, hidden, transposed)
            recalled[t] = from_hidden[:, 2 * width :]
            reset, update = gates[t].add_(from_hidden[:, : 2 * width]).sigmoid_().chunk(2, dim=1)
            candidate = candidates[t].addcmul_(reset, recalled[t]).tanh_()
            hidden = torch.lerp(candidate, hidden, update, out=outputs[t])
        ctx.save_for_backward(weight, is_first, gates, candidates, hiddens, recalled)
        ctx.reset_rows = reset_rows
        return outputs, hidden.clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # Any: torch's context
        grad_outputs: Tensor,
        grad_hidden: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Returns gradients of the arguments of `apply`, None for the last two."""
        weight, is_first, gates, candidates, hiddens, recalled = ctx.saved_tensors
        reset, update = gates.chunk(2, dim=2)
        # Derivatives of h_t, for all rows at once: by the sum in n, then by the state's part.
        by_candidate = (1 - update) * (1 - candidates.square())
        slopes = torch.stack(
            (
                by_candidate * recalled * reset * (1 - reset),
                (hiddens - candidates) * update * (1 - update),
                by_candidate * reset,
            ),
            dim=2,
        )
        for t in range(len(gates) - 1, -1, -1):
            grad_hidden = grad_outputs[t] + grad_hidden
            slopes[t].mul_(grad_hidden.unsqueeze(1))
            by_candidate[t].mul_(grad_hidden)
            grad_hidden = torch.addmm(grad_hidden * update[t], slopes[t].flatten(1), weight)
            if t in ctx.reset_rows:
                grad_hidden = grad_hidden.masked_fill(is_first[t].unsqueeze(-1), 0.0)
        from_hidden = slopes.flatten(2)
        grad_input = torch.cat((slopes[:, :, :2].flatten(2), by_candidate), dim=2)
        grad_weight = from_hidden.flatten(0, 1).t() @ hiddens.flatten(0, 1)
        grad_bias = from_hidden.sum(dim=(0, 1))
        return grad_input, grad_weight, grad_bias, grad_hidden, None, None
