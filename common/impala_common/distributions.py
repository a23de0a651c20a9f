"""Action distributions: what actors sample from and losses score.

Discrete actions only: a categorical distribution given by its logits. Another kind
of action brings its own set of the same five functions (log-probability, entropy,
sample, mode, KL); callers know distributions by these functions only. Log-probabilities of an
action made of parts are summed over the parts before a ratio is formed.

Pure; every function takes logits of any leading shape with A last.
"""

from __future__ import annotations

import torch
from torch import Tensor


def categorical_log_probs(policy_logits: Tensor, actions: Tensor) -> Tensor:
    """Returns log-probabilities of actions.

    Args:
      policy_logits: float [..., A]: unnormalised logits.
      actions: int64 [...]: actions in [0, A).

    Returns:
      float [...]: log pi(action).
    """
    log_probs = torch.log_softmax(policy_logits, dim=-1)
    return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def categorical_entropy(policy_logits: Tensor) -> Tensor:
    """Returns the entropy in nats, float [...], of policies given by logits [..., A]."""
    log_probs = torch.log_softmax(policy_logits, dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def categorical_kl(policy_logits: Tensor, other_policy_logits: Tensor) -> Tensor:
    """Returns KL(policy || other) in nats, float [...], of policies given by logits [..., A]."""
    log_probs = torch.log_softmax(policy_logits, dim=-1)
    other_log_probs = torch.log_softmax(other_policy_logits, dim=-1)
    return (log_probs.exp() * (log_probs - other_log_probs)).sum(dim=-1)


@torch.no_grad()
def sample_categorical(policy_logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws one action for each policy.

    Gumbel-max: argmax(logits + Gumbel noise), where Gumbel noise is -log of exponential
    noise. Needs no normalisation and no loop over rows.

    Args:
      policy_logits: float [..., A]: unnormalised logits.
      generator: source of randomness, on the same device as the logits.

    Returns:
      int64 [...]: actions in [0, A).
    """
    noise = torch.empty_like(policy_logits).exponential_(generator=generator)
    return torch.argmax(policy_logits - noise.log_(), dim=-1)


def mode_categorical(policy_logits: Tensor) -> Tensor:
    """Returns the most probable action, int64 [...], of policies given by logits [..., A]."""
    return torch.argmax(policy_logits, dim=-1)
