"""The entropy loss: what a row's entropy is worth above and below its floor."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from impala_common.config.sections import LossConfig
from impala_common.numerics.distributions import make_policies
from impala_common.numerics.entropy_loss import compute_entropy_loss
from impala_common.spec.action_spec import ActionPart, ActionSpec

CHOICE = ActionSpec.discrete(3)
BOX = ActionSpec((ActionPart("action", "gaussian", (1,), "float32", lows=(-1.0,), highs=(1.0,)),))
PLAIN = LossConfig(entropy_cost=0.2)
FLOORED = LossConfig(entropy_cost=0.2, entropy_floor=0.5, entropy_floor_cost=0.7)
OPEN, SETTLED = (1.0, 0.0, -1.0), (6.0, 0.0, -1.0)


def compute(action: ActionSpec, logits: Tensor, is_padding: Tensor, config: LossConfig) -> Tensor:
    policies = make_policies(action, logits)
    return compute_entropy_loss(policies, policies.negative_entropies(), is_padding, config)


def test_entropy_below_its_floor_is_worth_more_in_each_row() -> None:
    """Planted: the floor of the mean; more worth above it; padding rows counted."""
    logits = torch.tensor([OPEN, SETTLED, SETTLED]).unsqueeze(1).requires_grad_()
    is_padding = torch.tensor([[False], [False], [True]])
    entropies = -make_policies(CHOICE, logits).negative_entropies()
    floor = 0.5 * math.log(3)
    assert entropies[1] < floor < entropies[0]

    loss = compute(CHOICE, logits, is_padding, FLOORED)

    wanted = -0.2 * (entropies[0] + entropies[1]) - 0.7 * (floor + entropies[1])
    torch.testing.assert_close(loss, wanted.squeeze())
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (wanted_gradient,) = torch.autograd.grad(wanted, logits)
    torch.testing.assert_close(gradient, wanted_gradient)


@pytest.mark.parametrize("config", [PLAIN, FLOORED], ids=["plain", "floored"])
def test_continuous_actions_have_no_floor(config: LossConfig) -> None:
    logits = torch.full((2, 1, 2), -4.0)
    is_padding = torch.zeros(2, 1, dtype=torch.bool)

    loss = compute(BOX, logits, is_padding, config)

    entropies = -make_policies(BOX, logits).negative_entropies()
    torch.testing.assert_close(loss, -0.2 * entropies.sum())


def test_each_choice_has_a_floor_of_its_own() -> None:
    """Seen to fail: a choice without effect kept the sum above the floor of all."""
    two = ActionSpec((ActionPart("action", "categorical", (2,), "int64", sizes=(3, 3)),))
    logits = torch.tensor([[[*SETTLED, 0.0, 0.0, 0.0]]], requires_grad=True)
    alone = torch.tensor([[SETTLED]], requires_grad=True)
    is_padding = torch.zeros(1, 1, dtype=torch.bool)

    (gradient,) = torch.autograd.grad(compute(two, logits, is_padding, FLOORED), logits)
    (wanted,) = torch.autograd.grad(compute(CHOICE, alone, is_padding, FLOORED), alone)

    torch.testing.assert_close(gradient[..., :3], wanted)
