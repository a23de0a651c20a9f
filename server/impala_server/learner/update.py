"""One update: the optimizer steps that the learner makes on one batch.

Called by a learner thread under the update lock. It changes parameters, optimizer state, running
statistics and the shuffling generator. If a loss or gradient is not finite, or the device has no
memory, weights, optimizer and statistics stay unchanged.

With the default settings it is IMPALA's one step on the whole batch. `ReuseConfig` asks for
more: passes over the batch, each in parts (arXiv 1707.06347), with V-trace computed anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from impala_common.config import LossConfig, TrainConfig
from impala_common.config.checks import require
from impala_common.errors import DeviceMemoryError, RankLostError
from impala_common.models.contract import AgentModel
from impala_common.models.normalisation import NormalisedModel
from impala_common.numerics.losses import (
    LossOutputs,
    Targets,
    compute_losses,
    compute_losses_towards,
    compute_targets,
    normalise_advantages,
)
from impala_common.numerics.reward_preprocessing import preprocess_rewards
from impala_common.process import failpoints
from impala_common.spec.action_spec import ActionSpec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.gradient_exchange import GradientExchange
from impala_server.learner.optimizers import set_learning_rate
from impala_server.learner.parts import Part, cut, fill_up, take_fresh
from impala_server.learner.undo import Undo
from impala_server.learner.update_result import GradientNorms, UpdateResult, UpdateTally

_GRADIENTS_EVERY = 100  # updates; it costs a forward and a backward pass


class Updater:
    """The V-trace update. Owned by the training state; used by one thread at a time.

    Attributes:
      generator: draws the order of parts; on the CPU.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: AgentModel,
        optimizer: torch.optim.Optimizer,
        action: ActionSpec,
        encoder_dtype: torch.dtype = torch.float32,
        exchange: GradientExchange | None = None,
    ) -> None:
        """Updates `model`, a policy over `action`, with `optimizer`.

        Its encoder computes in `encoder_dtype`; all else stays in float32. With `exchange`, each
        step is made on the parts of all learner ranks, alike on every rank.

        Raises:
          ConfigError: the settings shuffle rows, and the network has memory.
        """
        self._action = action
        self._model = model
        self._exchange = exchange
        self.configure(config)
        self._optimizer = optimizer
        self._parameters = list(model.parameters())
        self._normaliser = model if isinstance(model, NormalisedModel) else None
        statistics = self._normaliser.statistics() if self._normaliser else []
        self._undo = Undo(model, optimizer, statistics)
        state = model.state_dict().values()
        self._floats = [value.detach() for value in state if value.is_floating_point()]
        self._autocast = torch.autocast(
            self._parameters[0].device.type,
            encoder_dtype,
            enabled=encoder_dtype != torch.float32,
        )
        self.generator = torch.Generator().manual_seed(config.job.seed)
        self._total = None if exchange is None else exchange.sum
        self._num_updates = 0

    def configure(self, config: TrainConfig) -> None:
        """Takes over losses, reuse and gradient clipping of `config`, from the next step on.

        Raises:
          ConfigError: the settings shuffle rows, and the network has memory.
        """
        has_memory = bool(self._model.agent_state_specs())
        require(
            "part_kind",
            config.reuse.part_kind,
            config.reuse.part_kind != "rows" or not has_memory,
            "unrolls or auto for a network with memory",
            "a row alone does not say what its network remembered",
        )
        self._loss_config = config.loss
        self._reuse = config.reuse.fit_to_network(has_memory, config.rollout.batch_size)
        self._max_grad_norm = config.optimizer.max_grad_norm or torch.inf

    def apply(
        self, batch: Batch, learning_rate: float, has_time: Callable[[], bool] = lambda: False
    ) -> UpdateResult:
        """Makes the steps of one update on `batch`, at `learning_rate`.

        After the passes that the settings ask for, `has_time` says before each further one whether
        to make it.

        Raises:
          DeviceMemoryError: no memory for it; nothing has changed.
        """
        self._undo.save(is_whole=not self._reuse.is_single_step)
        shortage = ""
        try:
            return self._make_passes(batch, learning_rate, has_time)
        except torch.OutOfMemoryError as error:
            shortage = str(error)
        except RankLostError:
            self._undo.restore()  # a last checkpoint holds the state before this update
            raise
        # Outside of "except": the traceback would keep the tensors of the attempt.
        self._undo.restore()
        self._optimizer.zero_grad(set_to_none=True)
        if self._parameters[0].device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceMemoryError(
            f"{self._parameters[0].device} has no memory for an update of a batch: smaller "
            "--batch-size or --unroll-length, a smaller network, or end what else uses the "
            f"device ({shortage})"
        )

    def _make_passes(
        self, batch: Batch, learning_rate: float, has_time: Callable[[], bool]
    ) -> UpdateResult:
        reuse = self._reuse
        self._count(batch)
        set_learning_rate(self._optimizer, learning_rate)
        rewards = preprocess_rewards(batch.rewards, self._loss_config, self.reward_std)
        batch = batch._replace(rewards=rewards)
        tally = UpdateTally(self._parameters[0].device)
        targets: Targets | None = None
        for index in range(max(reuse.passes, reuse.max_passes)):
            if index >= reuse.passes and not self._is_wanted(has_time()):
                break
            targets = self._find_targets(batch, targets)
            tally.begin_pass()
            for part in self._cut(batch, targets):
                if not self._make_step(part, tally):
                    return self._finish(tally)
        return self._finish(tally)

    def _cut(self, batch: Batch, targets: Targets | None) -> Iterator[Part]:
        """Yields the parts of one pass; as many on every rank."""
        parts = cut(batch, targets, self._reuse, self.generator)
        if self._exchange is None:
            return parts
        return fill_up(parts, batch, targets, self._reuse)

    def _is_wanted(self, is_wanted: bool) -> bool:
        """Returns whether all ranks want a further pass."""
        return is_wanted if self._exchange is None else self._exchange.is_wanted_by_all(is_wanted)

    def _find_kl(self, losses: LossOutputs, part: Part) -> float:
        """Returns the mean KL divergence of a part's fresh rows, over all ranks."""
        if self._exchange is None:
            return float(losses.kl)
        num_rows = part.num_fresh_rows.double()
        total, count = self._exchange.sum(torch.stack((losses.kl * num_rows, num_rows)))
        return float(total / count.clamp(min=1.0))

    @property
    def _is_mean(self) -> bool:
        return self._loss_config.loss_reduction == "mean"

    def _make_step(self, part: Part, tally: UpdateTally) -> bool:
        """Makes one optimizer step; returns whether further ones may follow."""
        reuse = self._reuse
        losses = self.compute_losses(part)
        if reuse.kl_stop and tally.num_steps:
            kl = self._find_kl(losses, part)
            if kl > reuse.kl_stop:
                tally.note_kl(kl)
                return False
        is_measured = tally.num_steps == 0 and self._num_updates % _GRADIENTS_EVERY == 0
        policy_gradient = self._compute_policy_gradient(part) if is_measured else []
        self._optimizer.zero_grad(set_to_none=True)
        losses.total_loss.backward()  # type: ignore[no-untyped-call]
        if self._exchange is not None:
            losses = self._exchange.reduce_step(
                self._parameters, losses, part.num_rows, self._is_mean
            )
        if is_measured:
            tally.gradient_norms = self._compare_gradients(policy_gradient)
        grad_norm = self._clip_gradient()
        tally.add(losses, grad_norm, self._max_grad_norm, self._has_statistics(part))
        if reuse.is_single_step and not tally.check():
            return False
        failpoints.hit("update.before_step")
        try:
            self._optimizer.step()
        except torch.OutOfMemoryError:
            if self._undo.is_whole:
                raise
            tally.damage = (
                "the device had no memory for the optimizer's step, and may have made half"
            )
            return False
        failpoints.hit("update.after_step")
        tally.num_steps += 1
        return True

    def _finish(self, tally: UpdateTally) -> UpdateResult:
        """Checks the update, and undoes it if it failed."""
        self._num_updates += 1
        is_finite = tally.is_finite if self._reuse.is_single_step else tally.check()
        if is_finite and not tally.damage and not self._has_finite_weights():
            is_finite = not self._undo.is_whole
            tally.damage = (
                "" if self._undo.is_whole else ("the last update made weights that are not finite")
            )
        if not is_finite:
            self._undo.restore()
        return tally.make_result(is_applied=is_finite and not tally.damage)

    def _find_targets(self, batch: Batch, before: Targets | None) -> Targets | None:
        """Returns the targets of the whole batch for the next pass; None: parts compute their own.

        Args:
          batch: with preprocessed rewards.
          before: targets of the pass before.
        """
        reuse = self._reuse
        if before is not None and not reuse.vtrace_per_pass:
            return before
        is_kept = not reuse.vtrace_per_pass and not reuse.is_single_step
        needs_batch = reuse.part_kind == "rows" or reuse.advantage_normalisation == "batch"
        if not is_kept and not (needs_batch and reuse.parts > 1):
            return None
        with torch.no_grad(), self._autocast:
            outputs = self._model(batch.inputs, batch.initial_agent_state)
        targets = compute_targets(
            action=self._action,
            target_policy_logits=outputs.policy_logits[:-1],
            behaviour_policy_logits=batch.behaviour_policy_logits,
            actions=batch.actions,
            rewards=batch.rewards,
            terminated=batch.terminated,
            is_padding=batch.is_padding,
            values=outputs.values[:-1],
            bootstrap_value=outputs.values[-1],
            config=self._loss_config,
        )
        if reuse.advantage_normalisation == "batch":
            return normalise_advantages(targets, batch.is_padding, self._total)
        return targets

    def compute_losses(self, part: Part) -> LossOutputs:
        """Runs the model over a part and returns the losses, with gradient."""
        return self._compute_losses(part, self._loss_config)

    def _compute_losses(self, part: Part, config: LossConfig) -> LossOutputs:
        with self._autocast:
            outputs = self._model(part.inputs, part.initial_agent_state)
        if part.targets is not None:
            return compute_losses_towards(
                part.targets,
                action=self._action,
                target_policy_logits=outputs.policy_logits,
                behaviour_policy_logits=part.behaviour_policy_logits,
                actions=part.actions,
                is_padding=part.is_padding,
                values=outputs.values,
                config=config,
                reuse=self._reuse,
                has_statistics=self._has_statistics(part),
                total=self._total,
                is_fresh=part.is_fresh,
            )
        assert part.rewards is not None
        assert part.terminated is not None
        return compute_losses(
            action=self._action,
            target_policy_logits=outputs.policy_logits[:-1],
            behaviour_policy_logits=part.behaviour_policy_logits,
            actions=part.actions,
            rewards=part.rewards,
            terminated=part.terminated,
            is_padding=part.is_padding,
            values=outputs.values[:-1],
            bootstrap_value=outputs.values[-1],
            config=config,
            reuse=self._reuse,
            total=self._total,
            is_fresh=part.is_fresh,
        )

    def _has_statistics(self, part: Part) -> bool:
        """Returns whether to compute a part's statistics: always for the last part of a pass."""
        return part.targets is None or part.is_last or self._reuse.kl_stop > 0.0

    def _compute_policy_gradient(self, part: Part) -> list[Tensor]:
        """Returns the gradient of policy and entropy losses alone, by parameter."""
        config = dataclasses.replace(self._loss_config, baseline_cost=0.0)
        total_loss = self._compute_losses(part, config).total_loss
        gradient = list(
            torch.autograd.grad(
                total_loss, self._parameters, allow_unused=True, materialize_grads=True
            )
        )
        if self._exchange is None:
            return gradient
        return self._exchange.reduce_gradient(gradient, part.num_rows, self._is_mean)

    def _compare_gradients(self, policy_gradient: list[Tensor]) -> GradientNorms:
        """Returns the norms of the policy's and of the value's gradient."""
        value_gradient = [
            mine if parameter.grad is None else parameter.grad - mine
            for parameter, mine in zip(self._parameters, policy_gradient, strict=True)
        ]
        return GradientNorms(
            torch.nn.utils.get_total_norm(policy_gradient),
            torch.nn.utils.get_total_norm(value_gradient),
        )

    def _clip_gradient(self) -> Tensor:
        """Scales the gradient down to its largest norm; returns the norm before, a scalar."""
        if self._max_grad_norm < torch.inf:
            return torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        gradients = [parameter.grad for parameter in self._parameters]
        return torch.nn.utils.get_total_norm([grad for grad in gradients if grad is not None])

    def _has_finite_weights(self) -> bool:
        with torch.no_grad():
            norms = torch._foreach_norm(self._floats)
            # Running variances are float64, and may be larger than any float32.
            return bool(torch.isfinite(torch.stack([norm.double() for norm in norms]).sum()))

    @property
    def reward_std(self) -> Tensor | None:
        """Divisor of rewards, a scalar; None without reward normalisation."""
        return None if self._normaliser is None else self._normaliser.reward_std

    def _count(self, batch: Batch) -> None:
        """Adds the batch to the running statistics, if any: once, for any number of passes."""
        if self._normaliser is not None:
            fresh = take_fresh(batch)
            self._normaliser.update_statistics(
                fresh.inputs,
                fresh.rewards,
                fresh.is_padding,
                self._loss_config.discount,
                None if self._exchange is None else self._exchange.combine_moments,
            )
