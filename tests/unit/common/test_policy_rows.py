"""Divergences of rows: those of replayed unrolls count for nothing."""

from __future__ import annotations

import math

import torch

from impala_common.numerics.policy_rows import PolicyRows
from impala_common.spec.action_spec import ActionSpec


def test_replayed_row_counts_for_nothing_however_far_it_is() -> None:
    """Seen to fail: 0 times an infinite divergence is no number, which no kl_stop exceeds."""
    target = torch.tensor([[[0.0, 1.0], [0.0, -math.inf]]])
    behaviour = torch.zeros(1, 2, 2)
    actions = torch.zeros(1, 2, dtype=torch.int64)
    is_padding = torch.zeros(1, 2, dtype=torch.bool)
    is_fresh = torch.tensor([[True, False]])

    kls = PolicyRows(
        ActionSpec.discrete(2), target, behaviour, actions, is_padding, is_fresh=is_fresh
    ).compute_kls()
    alone = PolicyRows(
        ActionSpec.discrete(2), target[:, :1], behaviour[:, :1], actions[:, :1], is_padding[:, :1]
    ).compute_kls()

    torch.testing.assert_close(kls.mean(), alone.mean())
