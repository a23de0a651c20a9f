"""torch's own distributions for an ActionSpec, to check the product's against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as oracle

from impala_common.spec.action_spec import ActionSpec


def make_oracles(spec: ActionSpec, logits: Tensor) -> list[tuple[oracle.Distribution, slice]]:
    """torch's own distribution of each component or part, and its columns of the action."""
    parts: list[tuple[oracle.Distribution, slice]] = []
    column = logit = 0
    for part in spec.parts:
        n = part.num_components
        row = logits[..., logit : logit + part.num_logits]
        if part.kind == "categorical":
            for index, choice in enumerate(row.split(part.sizes, dim=-1)):
                place = slice(column + index, column + index + 1)
                parts.append((oracle.Categorical(logits=choice.unsqueeze(-2)), place))
        elif part.kind == "bernoulli":
            parts.append((oracle.Bernoulli(logits=row), slice(column, column + n)))
        else:
            normal = oracle.Normal(row[..., :n], row[..., n:].exp())
            parts.append((normal, slice(column, column + n)))
        column, logit = column + n, logit + part.num_logits
    return parts


def compute_log_probs(spec: ActionSpec, logits: Tensor, actions: Tensor) -> Tensor:
    """log pi(action), [...], of flat actions: the sum over all components."""
    flat = actions.unsqueeze(-1) if spec.tensor.shape == () else actions
    total = torch.zeros(logits.shape[:-1])
    for distribution, place in make_oracles(spec, logits):
        total = total + distribution.log_prob(flat[..., place].float()).sum(-1)
    return total


def compute_entropies(spec: ActionSpec, logits: Tensor) -> Tensor:
    """Entropies in nats, [...]: the sum over all components."""
    total = torch.zeros(logits.shape[:-1])
    for distribution, _place in make_oracles(spec, logits):
        total = total + distribution.entropy().sum(-1)
    return total


def compute_choice_entropies(spec: ActionSpec, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Entropies of the n choices and flags in nats, [..., n], and those of uniform ones."""
    entropies, largest = [logits[..., :0]], [logits[..., :0]]
    for distribution, _place in make_oracles(spec, logits):
        if not isinstance(distribution, oracle.Normal):
            entropies.append(distribution.entropy())
            uniform = type(distribution)(logits=torch.zeros_like(distribution.logits))
            largest.append(uniform.entropy())
    return torch.cat(entropies, -1), torch.cat(largest, -1)


def compute_kls(spec: ActionSpec, behaviour_logits: Tensor, target_logits: Tensor) -> Tensor:
    """KL(mu || pi) in nats, [...]: the sum over all components."""
    total = torch.zeros(behaviour_logits.shape[:-1])
    pairs = zip(
        make_oracles(spec, behaviour_logits), make_oracles(spec, target_logits), strict=True
    )
    for (mine, _), (other, _) in pairs:
        total = total + oracle.kl_divergence(mine, other).sum(-1)
    return total
