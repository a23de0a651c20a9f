"""The entropy loss: the bonus, and what is added to it below the floor. Pure."""

from __future__ import annotations

import torch
from torch import Tensor

from impala_common.config.sections import LossConfig
from impala_common.numerics.distributions import Policies


def compute_entropy_loss(
    policies: Policies, negative_entropies: Tensor, is_padding: Tensor, config: LossConfig
) -> Tensor:
    """Returns the loss, a scalar, summed over the rows that count.

        -entropy_cost * sum_t H_t - entropy_floor_cost * sum_t sum_c min(H_tc, floor_tc)

    H_tc is the entropy of choice c of row t, floor_tc `entropy_floor` times that of a uniform legal
    one. So entropy is worth more below the floor than above it: in a solved task advantages are
    noise, and without a floor the policy follows it until it tries nothing else, and cannot come
    back. Each choice has a floor of its own: one that matters little keeps its entropy, and would
    else speak for all.

    Args:
      policies: the target policies, [T, B].
      negative_entropies: float32 [T, B]: theirs, -H_t in nats, with gradient.
      is_padding: bool [T, B]: rows that hold no decision.
      config: entropy_cost, entropy_floor and entropy_floor_cost.
    """
    loss = negative_entropies.masked_fill(is_padding, 0.0).sum() * config.entropy_cost
    if config.entropy_floor == 0.0:
        return loss
    entropies, largest = policies.choice_entropies()
    low = torch.minimum(entropies, config.entropy_floor * largest).sum(dim=-1)
    return loss - low.masked_fill(is_padding, 0.0).sum() * config.entropy_floor_cost
