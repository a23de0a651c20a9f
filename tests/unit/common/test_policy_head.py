"""From features to flat logits, and from flat actions to inputs."""

from __future__ import annotations

import math

import pytest
import torch

from impala_common.config.sections import ModelConfig
from impala_common.models.contract import ModelInputs
from impala_common.models.inputs import append_previous_step
from impala_common.models.policy_head import PolicyHead
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.spec.action_spec import ActionPart, ActionSpec
from impala_common.spec.specs import EnvironmentSpec, TensorSpec

A = ActionPart("action/a", "gaussian", (2,), "float32", lows=(-1.0,) * 2, highs=(1.0,) * 2)
B = ActionPart("action/b", "categorical", (2,), "int64", (2, 3), (0, 0))
C = ActionPart("action/c", "gaussian", (), "float32", lows=(0.0,), highs=(math.inf,))
D = ActionPart("action/d", "bernoulli", (1,), "int8")
MIXED = ActionSpec((A, B, C, D))
LOG_STDS = [2, 3, 10]
"""Which of the 12 logits of MIXED are log_stds."""


def test_logits_hold_means_then_log_stds_of_each_part() -> None:
    """Planted: all log_stds at the end, in the order in which they are made."""
    head = PolicyHead(3, MIXED, log_std_init=-0.5)
    assert head.log_std is not None
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.arange(9.0))
        head.log_std.copy_(torch.tensor([-1.0, -2.0, -3.0]))

    logits = head(torch.randn(4, 5, 3))

    assert logits.shape == (4, 5, MIXED.num_logits)
    row = [0.0, 1.0, -1.0, -2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -3.0, 8.0]
    assert (logits == torch.tensor(row)).all()


def test_log_std_starts_as_configured_and_learns_within_its_limits() -> None:
    """Planted: log_std exponentiated in the head; a buffer in place of a parameter."""
    head = PolicyHead(3, MIXED, log_std_init=-0.5)
    assert head.log_std is not None

    logits = head(torch.randn(7, 3))
    logits[:, LOG_STDS].sum().backward()

    assert (logits[:, LOG_STDS] == -0.5).all()
    assert head.log_std.grad is not None
    assert head.log_std.grad.tolist() == [7.0, 7.0, 7.0]
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([-9.0, 9.0, 0.0]))
    assert head(torch.zeros(1, 3))[0, LOG_STDS].tolist() == [-5.0, 2.0, 0.0]


def test_log_std_beyond_its_limits_moves_back_and_not_further_out() -> None:
    """Seen to fail with a clamp: no gradient in either direction, so that it stays for ever."""
    head = PolicyHead(3, MIXED)
    assert head.log_std is not None
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([-5.1, 2.1, 2.0]))

    for factor, expected in ((1.0, [0.0, 7.0, 7.0]), (-1.0, [-7.0, 0.0, -7.0])):
        head.zero_grad()
        logits = head(torch.zeros(7, 3))
        (factor * logits[:, LOG_STDS].sum()).backward()

        assert logits[0, LOG_STDS].tolist() == [-5.0, 2.0, 2.0]
        assert head.log_std.grad is not None
        assert head.log_std.grad.tolist() == expected


@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_first_policy_of_a_network_is_nearly_a_standard_normal(recurrence: str) -> None:
    environment = EnvironmentSpec((TensorSpec("observation", (3,), "float32"),), ActionSpec((A,)))
    config = ModelConfig(recurrence=recurrence, log_std_init=0.25)  # type: ignore[arg-type]
    model = make_model(resolve_model_spec(config, environment), environment, seed=1)
    inputs = ModelInputs(
        {"observation": torch.randn(5, 6, 3)},
        torch.zeros(5, 6, dtype=torch.bool),
        torch.zeros(5, 6, 2),
        torch.zeros(5, 6),
    )

    logits = model(inputs, model.initial_state(6)).policy_logits

    assert logits[..., :2].abs().max() < 0.1
    assert (logits[..., 2:] == 0.25).all()
    assert "policy_head.log_std" in model.state_dict()


def test_head_of_choices_is_a_linear_layer_and_nothing_else() -> None:
    head = PolicyHead(3, ActionSpec.discrete(4))
    features = torch.randn(5, 3)

    logits = head(features)

    assert set(head.state_dict()) == {"weight", "bias"}
    assert torch.equal(logits, torch.nn.functional.linear(features, head.weight, head.bias))


def test_previous_action_is_encoded_by_kind_and_zero_at_a_first_row() -> None:
    """Planted: gaussian numbers not clamped; is_first ignored; one-hot of all choices at once."""
    actions = torch.tensor([[[0.5, -7.0, 1.0, 2.0, 7.5, 1.0], [1, 1, 1, 1, 1, 1]]])
    inputs = ModelInputs({}, torch.tensor([[False, True]]), actions, torch.tensor([[3.0, 0.0]]))

    features = append_previous_step(torch.full((2, 1), 9.0), inputs, MIXED)

    first = [9.0, 0.5, -1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 7.5, 1.0, 1.0]
    assert features.tolist() == [first, [9.0] + [0.0] * 10]
    assert actions[0, 0].tolist() == [0.5, -7.0, 1.0, 2.0, 7.5, 1.0]
