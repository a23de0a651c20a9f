"""Action distributions: log-probabilities, entropies and KL divergences from logits.

`make_policies` turns an ActionSpec and flat logits [..., P] into an object that knows
log-probabilities, entropies, divergences, samples and modes of whole actions. The parts
of an action are independent given the observation: log-probabilities are summed over all components
before a ratio is formed. A gaussian's log_std is exponentiated only here. Pure; any leading shape.
Actors draw with numpy: `impala_common.policy.action_sampler`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from impala_common.spec.action_spec import MASKED_LOGIT, ActionSpec

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_LEAST_LEGAL = MASKED_LOGIT / 2
"""Logits above it are those of legal choices."""


class Policies(ABC):
    """Distributions over actions, one for each leading index [...] of the logits."""

    @abstractmethod
    def log_probs(self, actions: Tensor) -> Tensor:
        """Returns log pi(action), float [...], of flat actions as ActionSpec.tensor says."""

    @abstractmethod
    def negative_entropies(self) -> Tensor:
        """Returns minus the entropy in nats, float [...]; of densities where continuous."""

    @abstractmethod
    def choice_entropies(self) -> tuple[Tensor, Tensor]:
        """Returns the entropies of n choices and flags, and of uniform legal ones, float [..., n].

        In nats; what is continuous has none. Only the first has a gradient.
        """

    @abstractmethod
    def kl(self, other: Self) -> Tensor:
        """Returns KL(self || other) in nats, float [...]."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws one action for each policy; the generator is on the logits' device."""

    @abstractmethod
    def mode(self) -> Tensor:
        """Returns the most probable action of each policy."""


class CategoricalPolicies(Policies):
    """Choices given by logits, float [..., A]; actions are int64 [...]."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits
        self._log_pi = torch.log_softmax(logits, dim=-1)

    def log_probs(self, actions: Tensor) -> Tensor:
        """Returns log pi(action), float [...]."""
        return self._log_pi.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def negative_entropies(self) -> Tensor:
        """Returns sum(pi log pi), float [...]."""
        return (self._log_pi.exp() * _finite_log(self._log_pi)).sum(dim=-1)

    def choice_entropies(self) -> tuple[Tensor, Tensor]:
        """Returns the entropy and the log of the number of legal choices, float [..., 1]."""
        num_legal = (self._logits > _LEAST_LEGAL).sum(dim=-1, keepdim=True)
        return -self.negative_entropies().unsqueeze(-1), num_legal.to(self._log_pi.dtype).log()

    def kl(self, other: Self) -> Tensor:
        """Returns sum(pi (log pi - log other)), float [...]."""
        return (self._log_pi.exp() * _log_ratio(self._log_pi, other._log_pi)).sum(dim=-1)

    @torch.no_grad()
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws by Gumbel-max: -log of exponential noise is Gumbel noise; no loop over rows."""
        noise = torch.empty_like(self._logits).exponential_(generator=generator)
        return torch.argmax(self._logits - noise.log_(), dim=-1)

    def mode(self) -> Tensor:
        """Returns the argmax, int64 [...]."""
        return torch.argmax(self._logits, dim=-1)


class BernoulliPolicies(Policies):
    """Flags given by the logit of 1, float [..., n]; actions are 0 or 1, [..., n]."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits
        self._log_one = functional.logsigmoid(logits)
        self._log_zero = functional.logsigmoid(-logits)

    def log_probs(self, actions: Tensor) -> Tensor:
        """Returns the sum over flags, float [...]."""
        return torch.where(actions > 0.5, self._log_one, self._log_zero).sum(dim=-1)

    def negative_entropies(self) -> Tensor:
        """Returns the sum over flags of p log p + (1-p) log(1-p), float [...]."""
        return -self._flag_entropies().sum(dim=-1)

    def choice_entropies(self) -> tuple[Tensor, Tensor]:
        """Returns those of the n flags, float [..., n]; 0 where only one value is legal."""
        is_open = self._logits.abs() < -_LEAST_LEGAL
        return self._flag_entropies(), is_open * math.log(2.0)

    def _flag_entropies(self) -> Tensor:
        ones, zeros = self._log_one.exp(), self._log_zero.exp()
        return -(ones * _finite_log(self._log_one) + zeros * _finite_log(self._log_zero))

    def kl(self, other: Self) -> Tensor:
        """Returns the sum over flags, float [...]."""
        ones = self._log_one.exp() * _log_ratio(self._log_one, other._log_one)
        zeros = self._log_zero.exp() * _log_ratio(self._log_zero, other._log_zero)
        return (ones + zeros).sum(dim=-1)

    @torch.no_grad()
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws each flag, int64 [..., n]."""
        uniform = torch.empty_like(self._logits).uniform_(generator=generator)
        return (uniform < self._logits.sigmoid()).long()

    def mode(self) -> Tensor:
        """Returns the likelier value of each flag, int64 [..., n]."""
        return (self._logits > 0.0).long()


class GaussianPolicies(Policies):
    """Independent normal numbers given by mean and log_std, float [..., 2n]: means first."""

    def __init__(self, logits: Tensor) -> None:
        self._means, self._log_stds = logits.chunk(2, dim=-1)

    def log_probs(self, actions: Tensor) -> Tensor:
        """Returns the sum over components of the log density, float [...]."""
        scaled = (actions - self._means) * torch.exp(-self._log_stds)
        return -(0.5 * scaled.square() + self._log_stds + _HALF_LOG_TWO_PI).sum(dim=-1)

    def negative_entropies(self) -> Tensor:
        """Returns -sum(log_std + (1 + log 2 pi) / 2), float [...]."""
        return -(self._log_stds + (0.5 + _HALF_LOG_TWO_PI)).sum(dim=-1)

    def choice_entropies(self) -> tuple[Tensor, Tensor]:
        """Returns none, float [..., 0]."""
        none = self._means[..., :0]
        return none, none

    def kl(self, other: Self) -> Tensor:
        """Returns the sum over components, float [...]."""
        inverse = torch.exp(-other._log_stds)
        stds, shifts = self._log_stds.exp() * inverse, (self._means - other._means) * inverse
        log_ratios = other._log_stds - self._log_stds
        return (log_ratios + 0.5 * (stds.square() + shifts.square() - 1.0)).sum(dim=-1)

    @torch.no_grad()
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws each component, float [..., n], unclipped."""
        noise = torch.empty_like(self._means).normal_(generator=generator)
        return self._means + self._log_stds.exp() * noise

    def mode(self) -> Tensor:
        """Returns the means, float [..., n]."""
        return self._means


class JointPolicies(Policies):
    """Actions of several components: flat actions [..., D] and logits [..., P]."""

    def __init__(self, action: ActionSpec, logits: Tensor) -> None:
        self._dtype = torch.float32 if action.has_gaussian else torch.int64
        self._groups = action.groups
        self._policies: list[Policies] = []
        for group in self._groups:
            part = logits[..., group.logits]
            if group.kind == "gaussian":
                self._policies.append(GaussianPolicies(part))
            elif group.kind == "bernoulli":
                self._policies.append(BernoulliPolicies(part))
            else:
                choices = part.reshape(*part.shape[:-1], group.num_components, group.size)
                self._policies.append(CategoricalPolicies(choices))

    def log_probs(self, actions: Tensor) -> Tensor:
        """Returns the sum over all components, float [...]."""
        terms = []
        for group, policies in zip(self._groups, self._policies, strict=True):
            part = actions[..., group.actions]
            if group.kind == "categorical":
                terms.append(policies.log_probs(part.long()).sum(dim=-1))
            else:
                terms.append(policies.log_probs(part))
        return _total(terms)

    def negative_entropies(self) -> Tensor:
        """Returns the sum over all components, float [...]."""
        return _total([self._sum(n, p.negative_entropies()) for n, p in enumerate(self._policies)])

    def choice_entropies(self) -> tuple[Tensor, Tensor]:
        """Returns those of all choices and flags, float [..., n]."""
        pairs = [policies.choice_entropies() for policies in self._policies]
        entropies, largest = (
            torch.cat([self._join(index, pair[which]) for index, pair in enumerate(pairs)], dim=-1)
            for which in (0, 1)
        )
        return entropies, largest

    def kl(self, other: Self) -> Tensor:
        """Returns the sum over all components, float [...]."""
        pairs = zip(self._policies, other._policies, strict=True)
        return _total([self._sum(n, mine.kl(its)) for n, (mine, its) in enumerate(pairs)])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws every component: int64 [..., D], float32 if any is continuous."""
        draws = [policies.sample(generator).to(self._dtype) for policies in self._policies]
        return torch.cat(draws, dim=-1)

    def mode(self) -> Tensor:
        """Returns every component's mode, as `sample` does."""
        return torch.cat([policies.mode().to(self._dtype) for policies in self._policies], dim=-1)

    def _join(self, index: int, values: Tensor) -> Tensor:
        """Returns values of a group, [..., C, 1] of choices or [..., n], as [..., n]."""
        return values.squeeze(-1) if self._groups[index].kind == "categorical" else values

    def _sum(self, index: int, values: Tensor) -> Tensor:
        """Returns values [...] of a group, summed over its components if not summed yet."""
        return values.sum(dim=-1) if self._groups[index].kind == "categorical" else values


def make_policies(action: ActionSpec, logits: Tensor) -> Policies:
    """Returns the distributions over `action` with the flat logits [..., P]."""
    if action.is_single_categorical:
        return CategoricalPolicies(logits)
    return JointPolicies(action, logits)


def _finite_log(log_probs: Tensor) -> Tensor:
    """Returns log-probabilities with 0 for those of minus infinity: 0 log 0 is 0, not NaN."""
    return log_probs.masked_fill(log_probs == -torch.inf, 0.0)


def _log_ratio(mine: Tensor, others: Tensor) -> Tensor:
    """Returns mine - others, 0 where mine is minus infinity: what has no probability adds none."""
    impossible = mine == -torch.inf
    return mine.masked_fill(impossible, 0.0) - others.masked_fill(impossible, 0.0)


def _total(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
