"""Scales, normalises and clips rewards before the losses.

Called by the learner on a whole batch, before any bootstrap value is added.
Actors report raw rewards and raw returns and never call this.
"""

from __future__ import annotations

from torch import Tensor

from impala_common.config.sections import LossConfig


def preprocess_rewards(
    rewards: Tensor, config: LossConfig, reward_std: Tensor | None = None
) -> Tensor:
    """Normalises, then scales, then clips rewards as `config` says.

    Args:
      rewards: float32 of any shape: rewards as the environment gave them.
      config: `reward_scale` and `reward_clipping` are used.
      reward_std: scalar that rewards are divided by first; None: no division.

    Returns:
      float32 of the same shape: a new tensor, or `rewards` itself if nothing changes.
    """
    if reward_std is not None:
        rewards = rewards / reward_std.to(rewards.dtype)
    if config.reward_scale != 1.0:
        rewards = rewards * config.reward_scale
    if config.reward_clipping == "clip":
        return rewards.clamp(-1.0, 1.0)
    if config.reward_clipping == "sign":
        return rewards.sign()
    return rewards
