"""The three losses of IMPALA, the surrogate of PPO, and the statistics reported beside them.

Called by a learner thread once per optimizer step, between the network's forward pass and
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

from impala_common.config.reuse import ReuseConfig
from impala_common.config.sections import LossConfig
from impala_common.numerics import vtrace
from impala_common.numerics.advantages import Total, normalise
from impala_common.numerics.entropy_loss import compute_entropy_loss
from impala_common.numerics.policy_rows import PolicyRows
from impala_common.numerics.shapes import check_shape
from impala_common.spec.action_spec import ActionSpec

_IMPALA = ReuseConfig()
_HIGH_RATIO = 1.1
_MAX_LOG_RATIO = 20.0  # exp(20) is 5e8: the surrogate stays finite, and so does its gradient


class Targets(NamedTuple):
    """Targets of the losses of some rows; carries no gradient.

    Attributes:
      vs: float32 [T, B]: value targets.
      advantages: float32 [T, B]: q_t - V_t, without an importance ratio; 0 on padding rows.
      policy_advantages: float32 [T, B]: the same, normalised if the settings say so.
      behaviour_log_probs: float32 [T, B]: log mu(action).
    """

    vs: Tensor
    advantages: Tensor
    policy_advantages: Tensor
    behaviour_log_probs: Tensor


class LossOutputs(NamedTuple):
    """Losses and statistics, each a float32 scalar tensor on the batch's device.

    Only `total_loss` carries a gradient. Statistics are means over the rows that count.

    Attributes:
      total_loss: the minimised loss: the sum of the next three.
      pg_loss: -sum(clipped_pg_rhos * advantage * log pi(action)), or the clipped surrogate.
      baseline_loss: baseline_cost * 0.5 * sum((vs - values)^2).
      entropy_loss: -entropy_cost * sum(entropy), and what `entropy_floor` adds.
      mean_rho: mean importance ratio, unclipped; 1 on-policy.
      fraction_clipped: share of ratios above clip_rho_threshold (0 if unclipped).
      kl: KL(mu || pi) in nats, behaviour against target policy; of rows that are not replayed.
      entropy: entropy of the target policy in nats.
      mean_value: mean value estimate.
      mean_advantage_abs: mean |advantage| that the policy loss uses; without the surrogate it
        includes the clipped ratio.
      high_rho_share: share of ratios above 1.1.
      effective_sample_share: (sum rho)^2 / (n sum rho^2): 1 on-policy, 1/n where one row counts.
      value_scale: root of the mean square of value estimates.
      return_scale: root of the mean square of the value targets vs.
      explained_variance: 1 - Var(vs - values) / Var(vs); 0 where vs does not vary.
      advantage_std: standard deviation of the advantages before ratio and normalisation.
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
    high_rho_share: Tensor
    effective_sample_share: Tensor
    value_scale: Tensor
    return_scale: Tensor
    explained_variance: Tensor
    advantage_std: Tensor


NUM_STATISTICS = len(LossOutputs._fields) - 4
"""Of LossOutputs, the last fields."""


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
    reuse: ReuseConfig = _IMPALA,
    total: Total | None = None,
    is_fresh: Tensor | None = None,
) -> LossOutputs:
    """Computes the losses of unrolls, with V-trace's targets from the same outputs.

    No gradient flows through vs, advantages or the bootstrap value. A truncated episode
    bootstraps from the value at its last observation, which stands in the padding row
    after it; a terminated one does not bootstrap.

    Args:
      action: specification of an action; P logits.
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
      reuse: surrogate_clip and advantage_normalisation, here over these unrolls.
      total: sums over learner ranks, for advantage_normalisation; None: there is one.
      is_fresh: bool [T, B]: rows of unrolls that are not replayed; None: all.

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
    rows = PolicyRows(
        action,
        target_policy_logits,
        behaviour_policy_logits,
        actions,
        is_padding,
        is_fresh=is_fresh,
    )
    targets = _compute_targets(rows, rewards, terminated, values, bootstrap_value, config)
    if reuse.advantage_normalisation != "none":
        targets = normalise_advantages(targets, is_padding, total)
    return _compute_outputs(rows, values, targets, config, reuse)


def compute_losses_towards(
    targets: Targets,
    *,
    action: ActionSpec,
    target_policy_logits: Tensor,
    behaviour_policy_logits: Tensor,
    actions: Tensor,
    is_padding: Tensor,
    values: Tensor,
    config: LossConfig,
    reuse: ReuseConfig = _IMPALA,
    has_statistics: bool = True,
    total: Total | None = None,
    is_fresh: Tensor | None = None,
) -> LossOutputs:
    """Computes the losses of rows with given targets; see `compute_losses`.

    Rows are independent here: [T, B] may be any arrangement of them. Advantages are
    normalised over these rows where `reuse` says "part", and used as they are otherwise.
    Without `has_statistics` the statistics are 0, which takes a tenth less time for small
    networks.
    """
    rows = PolicyRows(
        action,
        target_policy_logits,
        behaviour_policy_logits,
        actions,
        is_padding,
        targets.behaviour_log_probs,
        is_fresh,
    )
    check_shape("values", values, tuple(targets.vs.shape), {})
    if reuse.advantage_normalisation == "part":
        targets = normalise_advantages(targets, is_padding, total)
    # The network may have changed since: padding rows have no targets.
    targets = targets._replace(vs=torch.where(is_padding, values.detach(), targets.vs))
    return _compute_outputs(rows, values, targets, config, reuse, has_statistics)


@torch.no_grad()
def compute_targets(
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
) -> Targets:
    """Computes V-trace's targets of unrolls; arguments as `compute_losses` has them."""
    rows = PolicyRows(action, target_policy_logits, behaviour_policy_logits, actions, is_padding)
    return _compute_targets(rows, rewards, terminated, values, bootstrap_value, config)


@torch.no_grad()
def _compute_targets(
    rows: PolicyRows,
    rewards: Tensor,
    terminated: Tensor,
    values: Tensor,
    bootstrap_value: Tensor,
    config: LossConfig,
) -> Targets:
    returns = vtrace.from_importance_weights(
        log_rhos=rows.log_rhos,
        discounts=torch.where(terminated, 0.0, config.discount),
        rewards=rewards.masked_fill(rows.is_padding, 0.0),
        values=values,
        bootstrap_value=bootstrap_value,
        clip_rho_threshold=config.clip_rho_threshold,
        clip_pg_rho_threshold=config.clip_pg_rho_threshold,
        lambda_=config.vtrace_lambda,
        clip_c_threshold=config.clip_c_threshold,
    )
    advantages = returns.advantages.masked_fill(rows.is_padding, 0.0)
    return Targets(returns.vs, advantages, advantages, rows.behaviour_log_probs)


def normalise_advantages(
    targets: Targets, is_padding: Tensor, total: Total | None = None
) -> Targets:
    """Returns targets whose policy_advantages are normalised; see `advantages.normalise`."""
    advantages = normalise(targets.advantages, is_padding, total)
    return targets._replace(policy_advantages=advantages)


def _compute_outputs(
    rows: PolicyRows,
    values: Tensor,
    targets: Targets,
    config: LossConfig,
    reuse: ReuseConfig,
    has_statistics: bool = True,
) -> LossOutputs:
    is_padding = rows.is_padding
    with torch.no_grad():
        num_rows = (~is_padding).sum().clamp_(min=1)
        rhos = rows.log_rhos.exp()
    # On padding rows advantages are 0 and vs equals the value: two sums need no mask.
    if reuse.surrogate_clip > 0.0:
        used_advantages = targets.policy_advantages
        pg_loss = _compute_surrogate(rows, used_advantages, reuse.surrogate_clip)
    else:
        with torch.no_grad():
            threshold = config.clip_pg_rho_threshold
            clipped_pg_rhos = rhos if threshold is None else rhos.clamp(max=threshold)
            used_advantages = clipped_pg_rhos * targets.policy_advantages
        pg_loss = -(used_advantages * rows.action_log_probs).sum()
    baseline_loss = functional.mse_loss(values, targets.vs, reduction="sum") * (
        0.5 * config.baseline_cost
    )
    negative_entropies = rows.policies.negative_entropies()
    entropy_loss = compute_entropy_loss(rows.policies, negative_entropies, is_padding, config)
    total_loss = pg_loss + baseline_loss + entropy_loss
    if config.loss_reduction == "mean":
        total_loss, pg_loss, baseline_loss, entropy_loss = (
            loss / num_rows for loss in (total_loss, pg_loss, baseline_loss, entropy_loss)
        )
    losses = (total_loss, pg_loss.detach(), baseline_loss.detach(), entropy_loss.detach())
    if not has_statistics:
        return LossOutputs(*losses, *[total_loss.new_zeros(())] * NUM_STATISTICS)
    return LossOutputs(
        *losses,
        *_compute_statistics(
            rhos, rows, negative_entropies, values, targets, used_advantages, num_rows, config
        ),
    )


def _compute_surrogate(rows: PolicyRows, advantages: Tensor, clip: float) -> Tensor:
    """Returns the clipped surrogate of PPO (arXiv 1707.06347, equation 7), negated and summed.

        -sum_t min(r_t A_t, clip(r_t, 1 - clip, 1 + clip) A_t),   r_t = pi(a_t) / mu(a_t)

    As in IMPACT (arXiv 1912.00167) the data are not on-policy: r_t is against the behaviour
    policy mu of the actor, so that one ratio corrects for lag and for reuse, and A_t is
    V-trace's q_t - V_t without the ratio in front, which r_t replaces.
    """
    log_ratios = (rows.action_log_probs - rows.behaviour_log_probs).masked_fill(
        rows.is_padding, 0.0
    )
    ratios = log_ratios.clamp(max=_MAX_LOG_RATIO).exp()
    clipped = ratios.clamp(1.0 - clip, 1.0 + clip)
    return -torch.minimum(ratios * advantages, clipped * advantages).sum()


@torch.no_grad()
def _compute_statistics(
    rhos: Tensor,
    rows: PolicyRows,
    negative_entropies: Tensor,
    values: Tensor,
    targets: Targets,
    used_advantages: Tensor,
    num_rows: Tensor,
    config: LossConfig,
) -> tuple[Tensor, ...]:
    """Returns the statistics in the order of LossOutputs, masked and averaged in one go."""
    threshold = torch.inf if config.clip_rho_threshold is None else config.clip_rho_threshold
    vs = targets.vs
    per_row = torch.stack(
        (
            rhos,
            (rhos > threshold).to(rhos.dtype),
            rows.compute_kls(),
            negative_entropies.neg(),
            values,
            used_advantages.abs(),
            (rhos > _HIGH_RATIO).to(rhos.dtype),
            rhos.square(),
            values.square(),
            vs.square(),
            vs,
            vs - values,
            targets.advantages,
        )
    ).masked_fill_(rows.is_padding, 0.0)
    means = per_row.sum(dim=(1, 2)) / num_rows
    *first, mean_rho_square, value_square, vs_square, _, _, _ = means.unbind()
    effective_sample_share = first[0].square() / mean_rho_square.clamp(min=1e-12)
    # Two passes: the difference of two large moments would lose a small variance.
    centred = per_row[-3:] - means[-3:, None, None]
    variances = centred.masked_fill_(rows.is_padding, 0.0).square_().sum(dim=(1, 2))
    has_variance = variances[0] > 1e-8 * num_rows
    explained = torch.where(has_variance, 1.0 - variances[1] / variances[0], 0.0)
    return (
        *first,
        effective_sample_share,
        value_square.sqrt(),
        vs_square.sqrt(),
        explained,
        (variances[2] / num_rows).sqrt(),
    )
