"""PolicyRows: log-probabilities, ratios and divergences of the rows that losses are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from impala_common.numerics.distributions import make_policies
from impala_common.spec.action_spec import ActionSpec


class PolicyRows:
    """Log-probabilities and ratios of rows.

    Attributes:
      policies: the target policies.
      action_log_probs: float32 [T, B]: log pi(action), with gradient.
      behaviour_log_probs: float32 [T, B]: log mu(action).
      log_rhos: float32 [T, B]: log(pi/mu), without gradient; -inf on padding rows.
      is_padding: bool [T, B].
    """

    def __init__(
        self,
        action: ActionSpec,
        target_policy_logits: Tensor,
        behaviour_policy_logits: Tensor,
        actions: Tensor,
        is_padding: Tensor,
        behaviour_log_probs: Tensor | None = None,
        is_fresh: Tensor | None = None,
    ) -> None:
        """Computes what is read of them; shapes as `compute_losses` has them.

        Without `behaviour_log_probs` they are computed, too.
        """
        self.policies = make_policies(action, target_policy_logits)
        # The action of a padding row may have no probability: minus infinity.
        self.action_log_probs = self.policies.log_probs(actions).masked_fill(is_padding, 0.0)
        self.is_padding = is_padding
        self._is_fresh = is_fresh
        self._action = action
        self._behaviour_policy_logits = behaviour_policy_logits
        with torch.no_grad():
            if behaviour_log_probs is None:
                behaviour = make_policies(action, behaviour_policy_logits)
                behaviour_log_probs = behaviour.log_probs(actions)
            self.behaviour_log_probs = behaviour_log_probs
            self.log_rhos = (self.action_log_probs - behaviour_log_probs).masked_fill_(
                is_padding, -torch.inf
            )

    @torch.no_grad()
    def compute_kls(self) -> Tensor:
        """Returns KL(mu || pi), float32 [T, B], without gradient.

        Replayed rows, which are far by their age, have 0; the others are scaled up, so that the
        mean over all rows is theirs.
        """
        behaviour = make_policies(self._action, self._behaviour_policy_logits)
        kls = behaviour.kl(self.policies)
        if self._is_fresh is None:
            return kls
        is_counted = ~self.is_padding
        num_fresh = (is_counted & self._is_fresh).sum().clamp_(min=1)
        return kls.masked_fill(~self._is_fresh, 0.0) * (is_counted.sum() / num_fresh)
