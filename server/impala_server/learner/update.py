"""One optimizer step on one batch.

Called by a learner thread under the update lock. What it changes: parameters,
optimizer state, running statistics, and nothing if the loss or the gradient is not
finite.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from impala_common import failpoints
from impala_common.action_spec import ActionSpec
from impala_common.config import TrainConfig
from impala_common.losses import LossOutputs, compute_losses
from impala_common.models.contract import AgentModel
from impala_common.models.normalisation import NormalisedModel
from impala_common.preprocessing import preprocess_rewards
from impala_server.learner.batch_loader import Batch
from impala_server.learner.optimizers import set_learning_rate


class UpdateResult(NamedTuple):
    """What one update did.

    Attributes:
      is_applied: False if it was skipped for a non-finite loss or gradient.
      values: float32 [len(UPDATE_VALUES)]: losses and statistics, on the device.
    """

    is_applied: bool
    values: Tensor


UPDATE_VALUES = (*LossOutputs._fields, "grad_norm")
"""Names of `UpdateResult.values`, in order."""


class Updater:
    """The V-trace update. Owned by the learner; used under its update lock."""

    def __init__(
        self,
        config: TrainConfig,
        model: AgentModel,
        optimizer: torch.optim.Optimizer,
        action: ActionSpec,
    ) -> None:
        """Updates `model`, a policy over `action`, with `optimizer`."""
        self._action = action
        self.configure(config)
        self._model = model
        self._optimizer = optimizer
        self._parameters = list(model.parameters())
        self._normaliser = model if isinstance(model, NormalisedModel) else None
        self._statistics = self._normaliser.statistics() if self._normaliser else []

    def configure(self, config: TrainConfig) -> None:
        """Takes over losses and gradient clipping of `config`, from the next step on."""
        self._loss_config = config.loss
        self._max_grad_norm = config.optimizer.max_grad_norm or torch.inf

    def apply(self, batch: Batch, learning_rate: float) -> UpdateResult:
        """Makes one step on `batch` at `learning_rate`."""
        statistics_before = [tensor.clone() for tensor in self._statistics]
        self._count(batch)
        losses = self.compute_losses(batch)
        self._optimizer.zero_grad(set_to_none=True)
        losses.total_loss.backward()  # type: ignore[no-untyped-call]
        grad_norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        values = torch.stack([*(loss.detach() for loss in losses), grad_norm])
        if not bool(torch.isfinite(grad_norm + values[0])):
            for tensor, before in zip(self._statistics, statistics_before, strict=True):
                tensor.copy_(before)
            return UpdateResult(False, values)
        set_learning_rate(self._optimizer, learning_rate)
        failpoints.hit("update.before_step")
        self._optimizer.step()
        failpoints.hit("update.after_step")
        return UpdateResult(True, values)

    @property
    def reward_std(self) -> Tensor | None:
        """What rewards are divided by now, a scalar; None where they are not."""
        return None if self._normaliser is None else self._normaliser.reward_std

    def _count(self, batch: Batch) -> None:
        """Adds the batch to the running statistics, if there are any."""
        if self._normaliser is not None:
            self._normaliser.update_statistics(
                batch.inputs, batch.rewards, batch.is_padding, self._loss_config.discount
            )

    def compute_losses(self, batch: Batch) -> LossOutputs:
        """Runs the model over the whole unroll and returns the losses, with gradient."""
        outputs = self._model(batch.inputs, batch.initial_agent_state)
        return compute_losses(
            action=self._action,
            target_policy_logits=outputs.policy_logits[:-1],
            behaviour_policy_logits=batch.behaviour_policy_logits,
            actions=batch.actions,
            rewards=preprocess_rewards(batch.rewards, self._loss_config, self.reward_std),
            terminated=batch.terminated,
            is_padding=batch.is_padding,
            values=outputs.values[:-1],
            bootstrap_value=outputs.values[-1],
            config=self._loss_config,
        )
