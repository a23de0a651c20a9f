"""Recurrent state: reset before the first observation, carried across unrolls.

"Planted" in a docstring names a fault that was put into recurrent.py to see the test fail.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from impala_common.models.recurrent import RecurrentCore

T, B, F, H = 9, 3, 4, 5


def make_core(seed: int = 1) -> RecurrentCore:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return RecurrentCore(F, H, "orthogonal")


def make_sequence(seed: int, reset_rate: float) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(T, B, F, generator=generator)
    is_first = torch.rand(T, B, generator=generator) < reset_rate
    state = (torch.randn(1, B, H, generator=generator), torch.randn(1, B, H, generator=generator))
    return features, is_first, state


def run_cell_by_cell(
    core: RecurrentCore, features: Tensor, is_first: Tensor, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Oracle: an LSTM cell written out, one row and one column at a time."""
    weights = dict(core.lstm.named_parameters())
    outputs = torch.zeros(T, B, H)
    hiddens, cells = state[0][0].clone(), state[1][0].clone()
    for b in range(B):
        hidden, cell = hiddens[b], cells[b]
        for t in range(T):
            if is_first[t, b]:
                hidden, cell = torch.zeros(H), torch.zeros(H)
            gates = (
                weights["weight_ih_l0"] @ features[t, b]
                + weights["bias_ih_l0"]
                + weights["weight_hh_l0"] @ hidden
                + weights["bias_hh_l0"]
            )
            entry, forget, candidate, exit_ = gates.split(H)
            cell = forget.sigmoid() * cell + entry.sigmoid() * candidate.tanh()
            hidden = exit_.sigmoid() * cell.tanh()
            outputs[t, b] = hidden
        hiddens[b], cells[b] = hidden, cell
    return outputs, hiddens, cells


@pytest.mark.parametrize("reset_rate", [0.0, 0.15, 0.6, 1.0])
@torch.no_grad()
def test_core_with_resets_equals_cell_by_cell(reset_rate: float) -> None:
    """Planted: reset applied to all columns; row 0 never reset; reset after the row."""
    core = make_core()
    features, is_first, state = make_sequence(2, reset_rate)

    outputs, (hidden, cell) = core(features, is_first, state)

    expected, expected_hidden, expected_cell = run_cell_by_cell(core, features, is_first, state)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(hidden[0], expected_hidden)
    torch.testing.assert_close(cell[0], expected_cell)


@torch.no_grad()
def test_reset_row_ignores_everything_before_but_not_its_own_observation() -> None:
    """Planted: state zeroed after the first observation was consumed."""
    core = make_core()
    features, is_first, state = make_sequence(3, 0.0)
    is_first[4, 1] = True
    fresh = tuple(torch.zeros(1, B, H) for _ in range(2))

    outputs, _ = core(features, is_first, state)
    restarted, _ = core(features[4:], torch.zeros_like(is_first[4:]), fresh)
    changed_features = features.clone()
    changed_features[4, 1] += 1.0
    changed, _ = core(changed_features, is_first, state)

    torch.testing.assert_close(outputs[4:, 1], restarted[:, 1])
    assert (outputs[4:, 0] - restarted[:, 0]).abs().max() > 1e-3
    assert (outputs[5:, 1] - changed[5:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("split", [1, 4, 8])
@torch.no_grad()
def test_unroll_in_two_parts_with_carried_state_equals_whole(split: int) -> None:
    """Planted: the initial state returned instead of the last one."""
    core = make_core()
    features, is_first, state = make_sequence(4, 0.2)

    whole, (hidden, cell) = core(features, is_first, state)
    first, between = core(features[:split], is_first[:split], state)
    second, (last_hidden, last_cell) = core(features[split:], is_first[split:], between)

    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(last_hidden, hidden)
    torch.testing.assert_close(last_cell, cell)


@torch.no_grad()
def test_reset_forgets_nonfinite_state() -> None:
    """Planted: state multiplied by a mask, which keeps NaN."""
    core = make_core()
    features, is_first, state = make_sequence(5, 0.0)
    is_first[0] = True
    state[1].fill_(torch.nan)

    outputs, _ = core(features, is_first, state)

    assert outputs.isfinite().all()


def test_gradient_stops_at_resets_and_flows_between_them() -> None:
    core = make_core()
    features, is_first, state = make_sequence(6, 0.0)
    is_first[4] = True
    features.requires_grad_()

    outputs, _ = core(features, is_first, state)
    (grad,) = torch.autograd.grad(outputs[-1].sum(), features)

    assert (grad[:4] == 0.0).all()
    assert (grad[4:].abs().amax(dim=(1, 2)) > 0.0).all()


def test_integer_masks_are_rejected() -> None:
    """The negation of a uint8 1 is 254: true. Planted: the check of the element type removed."""
    core = make_core()
    features, is_first, state = make_sequence(7, 0.0)

    with pytest.raises(TypeError, match="bool"):
        core(features, is_first.to(torch.uint8), state)


def test_lstm_initial_weights_are_orthogonal_with_open_forget_gate() -> None:
    """Planted: the bias of the input gate set instead."""
    lstm = make_core().lstm
    bias = lstm.bias_ih_l0 + lstm.bias_hh_l0

    torch.testing.assert_close(lstm.weight_hh_l0.T @ lstm.weight_hh_l0, torch.eye(H))
    assert bias.tolist() == [0.0] * H + [1.0] * H + [0.0] * 2 * H
    # Row block 1 is the forget gate: closing it must erase the cell.
    with torch.no_grad():
        nn.init.zeros_(lstm.weight_ih_l0)
        nn.init.zeros_(lstm.weight_hh_l0)
        lstm.bias_ih_l0[H : 2 * H] = -100.0
        _, (_, cell) = lstm(torch.zeros(1, 1, F), (torch.zeros(1, 1, H), torch.ones(1, 1, H)))
    torch.testing.assert_close(cell, torch.zeros(1, 1, H))
