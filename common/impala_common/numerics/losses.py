"""The three losses of IMPALA and the statistics reported beside them.

Called by a learner thread once per update, between the network's forward pass and
the backward pass. Pure: tensors in, NamedTuple out; moves nothing between devices,
waits for no device and logs nothing. Formulas: arXiv 1802.01561, section 4.2; the
letters T, B are those of `impala_common.numerics.vtrace`, P is the width of the policy's logits.

Padding rows (no decision was taken) get a ratio of 0 and are masked out of
everything, so whatever an actor left in them changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from impala_common.config.sections import LossConfig
from impala_common.numerics import vtrace
from impala_common.numerics.distributions import make_policies
from impala_common.numerics.shapes import check_shape
from impala_common.spec.action_spec import ActionSpec


class LossOutputs(NamedTuple):
    """Losses and statistics, each a float32 scalar tensor on the batch's device.

    Only `total_loss` carries a gradient. Statistics are means over the rows that count.

    Attributes:
      total_loss: what is minimised: the sum of the next three.
      pg_loss: -sum(clipped_pg_rhos * advantage * log pi(action)).
      baseline_loss: baseline_cost * 0.5 * sum((vs - values)^2).
      entropy_loss: -entropy_cost * sum(entropy).
      mean_rho: mean importance ratio, unclipped; 1 on-policy.
      fraction_clipped: share of ratios above clip_rho_threshold (0 if unclipped).
      kl: KL(mu || pi) in nats, behaviour against target policy.
      entropy: entropy of the target policy in nats.
      mean_value: mean value estimate.
      mean_advantage_abs: mean |pg_advantages|.
      explained_variance: 1 - Var(vs - values) / Var(vs); 0 where vs does not vary.
    """

    total_loss: Tensor
    pg_loss: Tensor
    baseline_loss: Tensor
    entropy_loss: Tensor
    mean_rho: Tensor
    fraction_clipped: Tensor
    kl: Tensor
    entropy: Tensor
    mean_value: Tensor
    mean_advantage_abs: Tensor
    explained_variance: Tensor


def compute_losses(
    *,
    action: ActionSpec,
    target_policy_logits: Tensor,
    behaviour_policy_logits: Tensor,
    actions: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    is_padding: Tensor,
    values: Tensor,
    bootstrap_value: Tensor,
    config: LossConfig,
) -> LossOutputs:
    """Computes the IMPALA losses of one batch.

    No gradient flows through vs, advantages or the bootstrap value. A truncated episode
    bootstraps from the value at its last observation, which stands in the padding row
    after it; a terminated one does not bootstrap.

    Args:
      action: what an action consists of; P logits.
      target_policy_logits: float32 [T, B, P]: learner's policy, with gradient.
      behaviour_policy_logits: float32 [T, B, P]: logits the actions were drawn from.
      actions: int64 or float32 [T, B, ...]: actions taken, as `action.tensor` says and
        in range on padding rows too.
      rewards: float32 [T, B]: rewards after `preprocess_rewards`.
      terminated: bool [T, B]: whether the step ended the episode by its own rules.
      is_padding: bool [T, B]: rows that hold no decision.
      values: float32 [T, B]: value estimates at observations[:T], with gradient.
      bootstrap_value: float32 [B]: value estimate at observations[T].
      config: discount, clips, costs and reduction.

    Returns:
      LossOutputs.
    """
    sizes: dict[str, int] = {}
    num_logits = action.num_logits
    check_shape("target_policy_logits", target_policy_logits, ("T", "B", num_logits), sizes)
    check_shape("behaviour_policy_logits", behaviour_policy_logits, ("T", "B", num_logits), sizes)
    check_shape("actions", actions, ("T", "B", *action.tensor.shape), sizes)
    check_shape("rewards", rewards, ("T", "B"), sizes)
    check_shape("terminated", terminated, ("T", "B"), sizes)
    check_shape("is_padding", is_padding, ("T", "B"), sizes)
    check_shape("values", values, ("T", "B"), sizes)
    check_shape("bootstrap_value", bootstrap_value, ("B",), sizes)
    if terminated.dtype != torch.bool or is_padding.dtype != torch.bool:
        raise TypeError("terminated and is_padding must be bool: ~ of an integer mask is no mask")

    policies = make_policies(action, target_policy_logits)
    # What an actor left in padding rows may be an action of no probability: minus infinity.
    action_log_probs = policies.log_probs(actions).masked_fill(is_padding, 0.0)
    negative_entropies = policies.negative_entropies()

    with torch.no_grad():
        behaviour = make_policies(action, behaviour_policy_logits)
        log_rhos = (action_log_probs - behaviour.log_probs(actions)).masked_fill_(
            is_padding, -torch.inf
        )
        kls = behaviour.kl(policies)
        returns = vtrace.from_importance_weights(
            log_rhos=log_rhos,
            discounts=torch.where(terminated, 0.0, config.discount),
            rewards=rewards.masked_fill(is_padding, 0.0),
            values=values,
            bootstrap_value=bootstrap_value,
            clip_rho_threshold=config.clip_rho_threshold,
            clip_pg_rho_threshold=config.clip_pg_rho_threshold,
            lambda_=config.vtrace_lambda,
            clip_c_threshold=config.clip_c_threshold,
        )
        num_rows = (~is_padding).sum().clamp_(min=1)

    # On padding rows pg_advantages is 0 and vs equals the value: two sums need no mask.
    pg_loss = -(returns.pg_advantages * action_log_probs).sum()
    baseline_loss = functional.mse_loss(values, returns.vs, reduction="sum") * (
        0.5 * config.baseline_cost
    )
    entropy_loss = negative_entropies.masked_fill(is_padding, 0.0).sum() * config.entropy_cost
    total_loss = pg_loss + baseline_loss + entropy_loss
    if config.loss_reduction == "mean":
        total_loss, pg_loss, baseline_loss, entropy_loss = (
            loss / num_rows for loss in (total_loss, pg_loss, baseline_loss, entropy_loss)
        )

    statistics = _compute_statistics(
        log_rhos, kls, negative_entropies, values, returns, is_padding, num_rows, config
    )
    return LossOutputs(
        total_loss, pg_loss.detach(), baseline_loss.detach(), entropy_loss.detach(), *statistics
    )


@torch.no_grad()
def _compute_statistics(
    log_rhos: Tensor,
    kls: Tensor,
    negative_entropies: Tensor,
    values: Tensor,
    returns: vtrace.VTraceReturns,
    is_padding: Tensor,
    num_rows: Tensor,
    config: LossConfig,
) -> tuple[Tensor, ...]:
    """Returns the statistics in the order of LossOutputs, masked and averaged in one go."""
    rhos = log_rhos.exp()
    threshold = torch.inf if config.clip_rho_threshold is None else config.clip_rho_threshold
    per_row = torch.stack(
        (
            rhos,
            (rhos > threshold).to(rhos.dtype),
            kls,
            negative_entropies.neg(),
            values,
            returns.pg_advantages.abs(),
            returns.vs,
            returns.vs - values,
        )
    ).masked_fill_(is_padding, 0.0)
    means = per_row.sum(dim=(1, 2)) / num_rows
    statistics = means[:-2].unbind()
    # Two passes: the difference of two large moments would lose a small variance.
    centred = per_row[-2:] - means[-2:, None, None]
    variances = centred.masked_fill_(is_padding, 0.0).square_().sum(dim=(1, 2))
    has_variance = variances[0] > 1e-8 * num_rows
    explained = torch.where(has_variance, 1.0 - variances[1] / variances[0], 0.0)
    return (*statistics, explained)
