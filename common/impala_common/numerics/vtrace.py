"""V-trace targets and advantages (IMPALA, arXiv 1802.01561, section 4.1).

Pure functions of tensors: called by `impala_common.numerics.losses` on the learner's
device, hold no state, move nothing between devices, log nothing, carry no
gradient. Works in the element type it is given (float32 or float64).

Letters, here and everywhere in this project:
  T  unroll_length, in agent steps      B  batch_size, in unrolls
  A  num_actions                        L, H  recurrent layers and their width
Tensors are time-major; row t is the decision taken at observation t and its result (rewards[t] is
the reward for actions[t]). Nothing is shifted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from impala_common.numerics.shapes import TRAILING, check_shape


class VTraceReturns(NamedTuple):
    """Results of V-trace; no tensor carries a gradient.

    Attributes:
      vs: float [T, B, ...]: value targets, equation 1 of the paper.
      pg_advantages: float [T, B, ...]: advantages of the policy gradient, already
        weighted with the clipped importance ratio (section 4.2).
      advantages: float [T, B, ...]: the same without that ratio, q_t - V_t.
    """

    vs: Tensor
    pg_advantages: Tensor
    advantages: Tensor


@torch.no_grad()
def from_importance_weights(
    log_rhos: Tensor,
    discounts: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap_value: Tensor,
    clip_rho_threshold: float | None = 1.0,
    clip_pg_rho_threshold: float | None = 1.0,
    lambda_: float = 1.0,
    clip_c_threshold: float | None = 1.0,
) -> VTraceReturns:
    """Computes V-trace from log importance ratios of the actions taken.

    With `rho = min(rho_bar, pi/mu)` and `c = lambda * min(c_bar, pi/mu)`:

        delta_t  = rho_t (r_t + gamma_t V_{t+1} - V_t)
        vs_t     = V_t + delta_t + gamma_t c_t (vs_{t+1} - V_{t+1})        (remark 1)
        q_t      = r_t + gamma_t (lambda vs_{t+1} + (1 - lambda) V_{t+1})
        advantage_t = min(pg_rho_bar, pi/mu)_t (q_t - V_t)

    where V_T and vs_T are both the bootstrap value. lambda 1 is the paper's; lambda
    below 1 is, on-policy with unit clips, exactly GAE(lambda).

    Args:
      log_rhos: float [T, B, ...]: log(pi/mu) of each action; -inf (a ratio of 0) leaves
        vs equal to the value at that row, and cuts the trace there.
      discounts: float [T, B, ...]: 0 where the episode terminated.
      rewards: float [T, B, ...]: preprocessed rewards.
      values: float [T, B, ...]: value estimates at observations[:T].
      bootstrap_value: float [B, ...]: value estimate at observations[T].
      clip_rho_threshold: rho_bar, or None for unclipped.
      clip_pg_rho_threshold: pg_rho_bar, or None for unclipped.
      lambda_: in [0, 1].
      clip_c_threshold: c_bar, or None for unclipped.

    Returns:
      VTraceReturns.
    """
    sizes: dict[str, int] = {}
    check_shape("log_rhos", log_rhos, ("T", "B", TRAILING), sizes)
    full = tuple(log_rhos.shape)
    check_shape("discounts", discounts, full, sizes)
    check_shape("rewards", rewards, full, sizes)
    check_shape("values", values, full, sizes)
    check_shape("bootstrap_value", bootstrap_value, full[1:], sizes)
    if not full[0]:
        raise ValueError("log_rhos: expected at least one row, got T=0")

    rhos = log_rhos.exp()
    clipped_rhos = _clip(rhos, clip_rho_threshold)
    clipped_pg_rhos = (
        clipped_rhos
        if clip_pg_rho_threshold == clip_rho_threshold
        else _clip(rhos, clip_pg_rho_threshold)
    )
    cs = clipped_rhos if clip_c_threshold == clip_rho_threshold else _clip(rhos, clip_c_threshold)
    if lambda_ != 1.0:
        cs = cs * lambda_

    values_t_plus_1 = torch.cat((values[1:], bootstrap_value.unsqueeze(0)))
    td_errors = torch.addcmul(rewards, discounts, values_t_plus_1).sub_(values)
    # A product of traces above 1 can leave float32 although every vs is representable.
    can_overflow = clip_c_threshold is None or clip_c_threshold > 1.0
    scan_dtype = torch.float64 if can_overflow else values.dtype
    vs_minus_v = compute_suffix_recursion(
        (clipped_rhos * td_errors).to(scan_dtype), (discounts * cs).to(scan_dtype)
    ).to(values.dtype)
    vs = values + vs_minus_v

    # q_t - V_t = td_error_t + gamma_t lambda (vs_{t+1} - V_{t+1}); the last row has no correction.
    advantages = td_errors
    advantages[:-1].addcmul_(discounts[:-1], vs_minus_v[1:], value=lambda_)
    return VTraceReturns(vs, clipped_pg_rhos * advantages, advantages)


def _clip(rhos: Tensor, threshold: float | None) -> Tensor:
    """Returns `min(threshold, rhos)`, or `rhos` itself for None."""
    return rhos if threshold is None else rhos.clamp(max=threshold)


def compute_suffix_recursion(offsets: Tensor, factors: Tensor) -> Tensor:
    """Solves `x_t = offset_t + factor_t x_{t+1}` for all t, with zero beyond the last row.

    Each row is an affine map of the row below it. Doubling composes maps of 1, 2, 4, ...
    rows, for all t at once: log2(T) steps instead of T, which saves kernel launches on a GPU and
    Python calls on a CPU. No division, so factors may be 0.
    """
    num_rows = offsets.shape[0]
    span = 1  # before each step, offsets[t] and factors[t] cover rows t .. t + span - 1
    while span < num_rows:
        covered = num_rows - span
        offsets = torch.cat(
            (torch.addcmul(offsets[:covered], factors[:covered], offsets[span:]), offsets[covered:])
        )
        # Rows whose span already reaches the end need no factor any more.
        remaining = max(covered - span, 0)
        factors = factors[:remaining] * factors[span : span + remaining]
        span *= 2
    return offsets
