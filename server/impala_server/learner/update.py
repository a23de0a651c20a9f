"""One optimizer step on one batch.

Called by a learner thread under the update lock. What it changes: parameters,
optimizer state, running statistics, and nothing if the loss or the gradient is not
finite or the device has no memory for them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from impala_common.config import TrainConfig
from impala_common.errors import DeviceMemoryError
from impala_common.models.contract import AgentModel
from impala_common.models.normalisation import NormalisedModel
from impala_common.numerics.losses import LossOutputs, compute_losses
from impala_common.numerics.reward_preprocessing import preprocess_rewards
from impala_common.process import failpoints
from impala_common.spec.action_spec import ActionSpec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.optimizers import set_learning_rate


class UpdateResult(NamedTuple):
    """What one update did.

    Attributes:
      is_applied: False if it was skipped for a non-finite loss or gradient.
      values: float32 [len(UPDATE_VALUES)]: losses and statistics, on the device.
      damage: what is wrong with the weights afterwards; "" while they are good.
    """

    is_applied: bool
    values: Tensor
    damage: str = ""


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
        encoder_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Updates `model`, a policy over `action`, with `optimizer`.

        Its encoder computes in `encoder_dtype`; all else stays in float32.
        """
        self._action = action
        self.configure(config)
        self._model = model
        self._optimizer = optimizer
        self._parameters = list(model.parameters())
        self._normaliser = model if isinstance(model, NormalisedModel) else None
        self._statistics = self._normaliser.statistics() if self._normaliser else []
        state = model.state_dict().values()
        self._floats = [value.detach() for value in state if value.is_floating_point()]
        self._autocast = torch.autocast(
            self._parameters[0].device.type,
            encoder_dtype,
            enabled=encoder_dtype != torch.float32,
        )

    def configure(self, config: TrainConfig) -> None:
        """Takes over losses and gradient clipping of `config`, from the next step on."""
        self._loss_config = config.loss
        self._max_grad_norm = config.optimizer.max_grad_norm or torch.inf

    def apply(self, batch: Batch, learning_rate: float) -> UpdateResult:
        """Makes one step on `batch` at `learning_rate`.

        Raises:
          DeviceMemoryError: no memory for it; nothing has changed.
        """
        statistics_before = [tensor.clone() for tensor in self._statistics]
        shortage = ""
        try:
            values = self._accumulate_gradient(batch)
        except torch.OutOfMemoryError as error:
            shortage = str(error)
        if shortage:  # outside of "except": the traceback would keep the tensors of the attempt
            self._give_memory_back(statistics_before)
            raise DeviceMemoryError(
                f"{self._parameters[0].device} has no memory for an update of a batch: smaller "
                "--batch-size or --unroll-length, a smaller network, or end what else uses the "
                f"device ({shortage})"
            )
        grad_norm = self._clip_gradient()
        values = torch.cat([values, grad_norm.reshape(1)])
        if not bool(torch.isfinite(grad_norm + values[0])):
            self._put_statistics_back(statistics_before)
            return UpdateResult(False, values)
        set_learning_rate(self._optimizer, learning_rate)
        failpoints.hit("update.before_step")
        try:
            self._optimizer.step()
        except torch.OutOfMemoryError:
            damage = "the device had no memory for the optimizer's step, and may have made half"
            return UpdateResult(False, values, damage)
        failpoints.hit("update.after_step")
        if not self._has_finite_weights():
            return UpdateResult(False, values, "the last update made weights that are not finite")
        return UpdateResult(True, values)

    def _accumulate_gradient(self, batch: Batch) -> Tensor:
        """Counts the statistics and fills in the gradients; returns losses and statistics."""
        self._count(batch)
        self._optimizer.zero_grad(set_to_none=True)
        losses = self.compute_losses(batch)
        losses.total_loss.backward()  # type: ignore[no-untyped-call]
        return torch.stack([loss.detach() for loss in losses])

    def _clip_gradient(self) -> Tensor:
        """Scales the gradient down to its largest norm; returns the norm before, a scalar."""
        if self._max_grad_norm < torch.inf:
            return torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        gradients = [parameter.grad for parameter in self._parameters]
        return torch.nn.utils.get_total_norm([grad for grad in gradients if grad is not None])

    def _give_memory_back(self, statistics: list[Tensor]) -> None:
        self._put_statistics_back(statistics)
        self._optimizer.zero_grad(set_to_none=True)
        if self._parameters[0].device.type == "cuda":
            torch.cuda.empty_cache()

    def _put_statistics_back(self, statistics: list[Tensor]) -> None:
        for tensor, before in zip(self._statistics, statistics, strict=True):
            tensor.copy_(before)

    def _has_finite_weights(self) -> bool:
        with torch.no_grad():
            norms = torch._foreach_norm(self._floats)
            return bool(torch.isfinite(torch.stack([norm.float() for norm in norms]).sum()))

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
        with self._autocast:
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
