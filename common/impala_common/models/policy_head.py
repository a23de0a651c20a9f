"""PolicyHead: the linear layer from features to the policy's logits.

One linear layer gives every logit of categorical and bernoulli components and the
means of gaussian ones. The log_std of a gaussian component is a free parameter, the same
for all observations: a state-dependent one collapses early where rewards are sparse. Used
by all networks of this package and open to a user's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from impala_common.models.initialisation import POLICY_HEAD_GAIN, initialise_head
from impala_common.spec.action_spec import ActionSpec

MIN_LOG_STD = -5.0
MAX_LOG_STD = 2.0


class PolicyHead(nn.Linear):
    """Linear layer to `action.num_logits` policy logits.

    Args:
      num_features: F, width of the input.
      action: specification of an action.
      init_method: weight initialisation of the layer; its gain is .01, so that the first
        policy is nearly uniform and first means are nearly 0.
      log_std_init: initial log_std of gaussian components.
    """

    def __init__(
        self,
        num_features: int,
        action: ActionSpec,
        init_method: str = "orthogonal",
        log_std_init: float = 0.0,
    ) -> None:
        num_gaussian = sum(part.num_components for part in action.parts if part.kind == "gaussian")
        super().__init__(num_features, action.num_logits - num_gaussian)
        self.log_std: nn.Parameter | None = None
        self._order: Tensor | None
        self.register_buffer("_order", _find_order(action), persistent=False)
        if num_gaussian:
            self.log_std = nn.Parameter(torch.full((num_gaussian,), log_std_init))
        initialise_head(self, init_method, POLICY_HEAD_GAIN)

    @property
    def logit_order(self) -> Tensor | None:
        """Index of each logit in (linear outputs, log_stds); None: already in order."""
        return self._order

    def forward(self, features: Tensor) -> Tensor:
        """Returns policy logits, float32 [..., P], of features [..., F]."""
        outputs = super().forward(features)
        if self.log_std is None:
            return outputs
        log_stds = _bound(self.log_std)
        logits = torch.cat((outputs, log_stds.expand(*outputs.shape[:-1], -1)), dim=-1)
        return logits if self._order is None else logits.index_select(-1, self._order)


def _bound(log_std: Tensor) -> Tensor:
    """Returns log_stds within their limits; a gradient that leads back there passes."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        bounded: Tensor = _Bounded.apply(log_std)  # type: ignore[no-untyped-call]
        return bounded
    return log_std.clamp(MIN_LOG_STD, MAX_LOG_STD)


class _Bounded(torch.autograd.Function):
    """A clamp that is no trap: beyond a limit, a clamp has no gradient in either direction.

    The entropy bonus alone brings a log_std beyond the upper limit where rewards are rare, and the
    optimizer's momentum brings it beyond either.
    """

    @staticmethod
    def forward(ctx: Any, log_std: Tensor) -> Tensor:  # Any: torch's context
        ctx.save_for_backward(log_std)
        return log_std.clamp(MIN_LOG_STD, MAX_LOG_STD)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (log_std,) = ctx.saved_tensors
        leads_out = ((log_std > MAX_LOG_STD) & (gradient < 0.0)) | (
            (log_std < MIN_LOG_STD) & (gradient > 0.0)
        )  # descent goes against the gradient
        return gradient.masked_fill(leads_out, 0.0)


def _find_order(action: ActionSpec) -> Tensor | None:
    """Returns the index of each logit in (linear outputs, log_stds); None: already in order."""
    order: list[int] = []
    output = 0
    log_std = sum(part.num_inputs for part in action.parts)
    for part in action.parts:
        order += range(output, output + part.num_inputs)
        output += part.num_inputs
        if part.kind == "gaussian":
            order += range(log_std, log_std + part.num_components)
            log_std += part.num_components
    if order == list(range(len(order))):
        return None
    return torch.tensor(order)
