"""Recurrent state: reset before the first observation, carried across unrolls.

"Planted" in a docstring names a fault that was put into recurrent.py to see the test fail.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from impala_common.errors import ConfigError
from impala_common.models.recurrent import RecurrentCore

T, B, F, H = 9, 3, 4, 5
KINDS = ["lstm", "gru"]
State = tuple[Tensor, ...]


def make_core(kind: str, seed: int = 1) -> RecurrentCore:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return RecurrentCore(kind, F, H, "orthogonal")


def make_sequence(kind: str, seed: int, reset_rate: float) -> tuple[Tensor, Tensor, State]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(T, B, F, generator=generator)
    is_first = torch.rand(T, B, generator=generator) < reset_rate
    num_states = {"lstm": 2, "gru": 1}[kind]
    state = tuple(torch.randn(1, B, H, generator=generator) for _ in range(num_states))
    return features, is_first, state


def step_lstm(from_input: Tensor, from_hidden: Tensor, state: State) -> State:
    """The published formulas, for one row of one column."""
    entry, forget, candidate, exit_ = (from_input + from_hidden).split(H)
    cell = forget.sigmoid() * state[1] + entry.sigmoid() * candidate.tanh()
    return exit_.sigmoid() * cell.tanh(), cell


def step_gru(from_input: Tensor, from_hidden: Tensor, state: State) -> State:
    """The published formulas, the reset gate after the matrix as torch has it."""
    reset_x, update_x, candidate_x = from_input.split(H)
    reset_h, update_h, candidate_h = from_hidden.split(H)
    reset, update = (reset_x + reset_h).sigmoid(), (update_x + update_h).sigmoid()
    candidate = (candidate_x + reset * candidate_h).tanh()
    return ((1 - update) * candidate + update * state[0],)


def run_cell_by_cell(
    core: RecurrentCore, features: Tensor, is_first: Tensor, state: State
) -> tuple[Tensor, State]:
    """Oracle: the cell written out, one row and one column at a time."""
    step = {"lstm": step_lstm, "gru": step_gru}[{2: "lstm", 1: "gru"}[len(state)]]
    weights = dict(core.layer.named_parameters())
    outputs = torch.zeros(T, B, H)
    last = tuple(tensor[0].clone() for tensor in state)
    for b in range(B):
        now: State = tuple(tensor[0, b] for tensor in state)
        for t in range(T):
            if is_first[t, b]:
                now = tuple(torch.zeros(H) for _ in now)
            from_input = weights["weight_ih_l0"] @ features[t, b] + weights["bias_ih_l0"]
            from_hidden = weights["weight_hh_l0"] @ now[0] + weights["bias_hh_l0"]
            now = step(from_input, from_hidden, now)
            outputs[t, b] = now[0]
        for tensor, value in zip(last, now, strict=True):
            tensor[b] = value
    return outputs, last


@pytest.mark.parametrize("way", ["segments", "rows"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset_rate", [0.0, 0.15, 0.6, 1.0])
def test_core_with_resets_equals_cell_by_cell(
    kind: str, reset_rate: float, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: reset applied to all columns; row 0 never reset; reset after the row; going back
    by rows, resets left out, any one slope left out, or the gradient of the last state dropped.
    """
    core = make_core(kind)
    monkeypatch.setattr(RecurrentCore, "_prefers_rows", lambda *_: way == "rows")
    features, is_first, state = make_sequence(kind, 2, reset_rate)
    for tensor in (features, *state):
        tensor.requires_grad_()

    outputs, last = core(features, is_first, state)

    expected, expected_last = run_cell_by_cell(core, features, is_first, state)
    torch.testing.assert_close(outputs, expected)
    for tensor, expected_tensor in zip(last, expected_last, strict=True):
        torch.testing.assert_close(tensor[0], expected_tensor)
    inputs = (features, *state, *core.parameters())
    weights = torch.linspace(-1.0, 1.0, outputs.numel()).view_as(outputs)
    found, wanted = (
        torch.autograd.grad(
            (rows * weights).sum() + sum(tensor.square().sum() for tensor in end), inputs
        )
        for rows, end in ((outputs, last), (expected, expected_last))
    )
    for gradient, expected_gradient in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_reset_row_ignores_everything_before_but_not_its_own_observation(kind: str) -> None:
    """Planted: state zeroed after the first observation was consumed."""
    core = make_core(kind)
    features, is_first, state = make_sequence(kind, 3, 0.0)
    is_first[4, 1] = True
    fresh = tuple(torch.zeros_like(tensor) for tensor in state)

    outputs, _ = core(features, is_first, state)
    restarted, _ = core(features[4:], torch.zeros_like(is_first[4:]), fresh)
    changed_features = features.clone()
    changed_features[4, 1] += 1.0
    changed, _ = core(changed_features, is_first, state)

    torch.testing.assert_close(outputs[4:, 1], restarted[:, 1])
    assert (outputs[4:, 0] - restarted[:, 0]).abs().max() > 1e-3
    assert (outputs[5:, 1] - changed[5:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [1, 4, 8])
@torch.no_grad()
def test_unroll_in_two_parts_with_carried_state_equals_whole(kind: str, split: int) -> None:
    """Planted: the initial state returned instead of the last one."""
    core = make_core(kind)
    features, is_first, state = make_sequence(kind, 4, 0.2)

    whole, last = core(features, is_first, state)
    first, between = core(features[:split], is_first[:split], state)
    second, last_of_two = core(features[split:], is_first[split:], between)

    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(last_of_two, last)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_reset_forgets_nonfinite_state(kind: str) -> None:
    """Planted: state multiplied by a mask, which keeps NaN."""
    core = make_core(kind)
    features, is_first, state = make_sequence(kind, 5, 0.0)
    is_first[0] = True
    state[-1].fill_(torch.nan)

    outputs, _ = core(features, is_first, state)

    assert outputs.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_stops_at_resets_and_flows_between_them(kind: str) -> None:
    core = make_core(kind)
    features, is_first, state = make_sequence(kind, 6, 0.0)
    is_first[4] = True
    features.requires_grad_()

    outputs, _ = core(features, is_first, state)
    (grad,) = torch.autograd.grad(outputs[-1].sum(), features)

    assert (grad[:4] == 0.0).all()
    assert (grad[4:].abs().amax(dim=(1, 2)) > 0.0).all()


def test_integer_masks_are_rejected() -> None:
    """The negation of a uint8 1 is 254: true. Planted: the check of the element type removed."""
    core = make_core("lstm")
    features, is_first, state = make_sequence("lstm", 7, 0.0)

    with pytest.raises(TypeError, match="bool"):
        core(features, is_first.to(torch.uint8), state)


def test_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"recurrence.*rnn"):
        make_core("rnn")


def test_gru_initial_weights_are_orthogonal_and_biases_zero() -> None:
    layer = make_core("gru").layer

    torch.testing.assert_close(layer.weight_hh_l0.T @ layer.weight_hh_l0, torch.eye(H))
    assert not torch.cat((layer.bias_ih_l0, layer.bias_hh_l0)).any()


def test_lstm_initial_weights_are_orthogonal_with_open_forget_gate() -> None:
    """Planted: the bias of the input gate set instead."""
    lstm = make_core("lstm").layer
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
