"""IMPALA as one plain loop: the oracle of lockstep runs.

One process, one thread, no server and no wire: act T steps in every slot with the
weights at hand, take one optimizer step, repeat. Written from the paper (arXiv
1802.01561, remark 1) row by row and column by column. It shares with the product
what is no part of the claim (networks, environment adapter, the policy's sampling)
and nothing else: no unroll builder, codec, storage, batch loader, V-trace, loss,
optimizer set-up, schedule or counter.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from action_oracles import compute_entropies, compute_log_probs
from torch import Tensor

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_common.config import LossConfig, TrainConfig
from impala_common.models.contract import AgentModel, ModelInputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.policy import Policy
from impala_common.spec.action_spec import ActionSpec


class ReferenceRun(NamedTuple):
    """How the loop ended."""

    weights: dict[str, np.ndarray]
    num_updates: int
    num_steps: int


class Unroll(NamedTuple):
    """T decisions of all B slots: lists over rows; the inputs have one row more."""

    inputs: ModelInputs  # [T+1, B, ...]
    initial_state: tuple[Tensor, ...]
    actions: Tensor  # [T, B, ...]
    logits: Tensor  # [T, B, P]
    rewards: Tensor  # [T, B]
    terminated: Tensor  # [T, B]
    is_padding: Tensor  # [T, B]


def train_reference(config: TrainConfig, environment: EnvironmentAdapter) -> ReferenceRun:
    """Trains to config.job.total_steps and returns the final weights."""
    job, loss, settings = config.job, config.loss, config.optimizer
    # The seed of the first life of the first actor of the learner's first life.
    sequence = np.random.SeedSequence([job.seed, 0, 0, 1])
    seed = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
    normalises_rewards = loss.reward_normalisation == "return_std"
    model_spec = resolve_model_spec(config.model, environment.spec, normalises_rewards)
    model = make_model(model_spec, environment.spec, job.seed)
    action = environment.spec.action
    policy = Policy(copy.deepcopy(model), action, environment.num_slots, seed)
    if settings.optimizer == "adam":
        betas = (settings.adam_beta1, settings.adam_beta2)
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            model.parameters(), settings.learning_rate, betas, settings.eps
        )
    else:
        optimizer = torch.optim.RMSprop(
            model.parameters(), settings.learning_rate, settings.rmsprop_alpha, settings.eps
        )
    player = _Player(environment, policy, seed % 2**31)
    statistics = _Statistics(config)
    num_updates = num_steps = 0
    while num_steps < job.total_steps:
        policy.load({name: value.numpy() for name, value in model.state_dict().items()})
        unroll = player.play(config.rollout.unroll_length)
        unroll = statistics.count(unroll, model)
        optimizer.zero_grad()
        compute_loss(model, action, unroll, loss).backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
        for parameter in model.parameters():
            parameter.grad *= min(1.0, settings.max_grad_norm / (float(norm) + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1.0 - num_steps / job.total_steps)
        optimizer.step()
        num_updates += 1
        num_steps += int((~unroll.is_padding).sum())
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    return ReferenceRun(weights, num_updates, num_steps)


class _Statistics:
    """All rows ever seen, and their mean and variance whenever they are asked for."""

    def __init__(self, config: TrainConfig) -> None:
        self.discount = config.loss.discount
        self.observations: list[np.ndarray] | None = (
            [] if config.model.normalise_observations else None
        )
        self.sums: list[float] | None = (
            [] if config.loss.reward_normalisation == "return_std" else None
        )

    def count(self, unroll: Unroll, model: AgentModel) -> Unroll:
        """Puts the statistics into the model; returns the unroll with normalised rewards."""
        counts = (~unroll.is_padding).numpy()
        state = model.state_dict()  # the tensors themselves
        if self.observations is not None:
            self.observations.append(unroll.inputs.observations["observation"][:-1].numpy()[counts])
            _fill(state, "observation_moments.0", np.concatenate(self.observations))
        if self.sums is None:
            return unroll
        for column in range(counts.shape[1]):
            total = 0.0
            for row in range(len(counts)):
                if unroll.inputs.is_first[row, column]:
                    total = 0.0
                if counts[row, column]:
                    total = float(unroll.rewards[row, column]) + self.discount * total
                    self.sums.append(total)
        _fill(state, "reward_moments", np.array(self.sums))
        return unroll._replace(rewards=unroll.rewards / float(np.sqrt(np.var(self.sums) + 1e-8)))


def _fill(state: dict[str, Tensor], name: str, rows: np.ndarray) -> None:
    rows = rows.astype(np.float64)
    state[f"{name}.mean"].copy_(torch.as_tensor(rows.mean(0)))
    state[f"{name}.variance"].copy_(torch.as_tensor(rows.var(0)))
    state[f"{name}.count"].fill_(len(rows))


class _Player:
    """Acts, and writes down all it saw."""

    def __init__(self, environment: EnvironmentAdapter, policy: Policy, seed: int) -> None:
        self.environment = environment
        self.policy = policy
        self.observation = environment.reset(seed)["observation"].copy()
        self.is_first = np.ones(environment.num_slots, np.bool_)
        tensor = environment.spec.action.tensor
        self.previous_action = np.zeros((environment.num_slots, *tensor.shape), tensor.dtype)
        self.previous_reward = np.zeros(environment.num_slots, np.float32)

    def play(self, unroll_length: int) -> Unroll:
        initial_state = tuple(torch.tensor(state) for state in self.policy.agent_state)
        seen, decided = [self._saw()], []
        for _ in range(unroll_length):
            decision = self.policy.act({"observation": self.observation}, self.is_first)
            step = self.environment.step(decision.actions)
            self.policy.observe(step.rewards, step.is_first)
            decided.append(
                (
                    decision.actions.copy(),
                    decision.logits.copy(),
                    step.rewards.copy(),
                    step.terminated.copy(),
                    step.is_padding.copy(),
                )
            )
            self.observation = step.observations["observation"].copy()
            self.is_first = step.is_first.copy()
            # Nothing led to the first observation of an episode.
            self.previous_action = decision.actions.copy()
            self.previous_action[step.is_first] = 0
            self.previous_reward = np.where(step.is_first, np.float32(0.0), step.rewards)
            seen.append(self._saw())
        observations, is_first, actions, rewards = (
            torch.tensor(np.stack(rows)) for rows in zip(*seen, strict=True)
        )
        inputs = ModelInputs({"observation": observations}, is_first, actions, rewards)
        columns = (torch.tensor(np.stack(rows)) for rows in zip(*decided, strict=True))
        return Unroll(inputs, initial_state, *columns)

    def _saw(self) -> tuple[np.ndarray, ...]:
        return self.observation, self.is_first, self.previous_action, self.previous_reward


def compute_loss(
    model: AgentModel, action: ActionSpec, unroll: Unroll, config: LossConfig
) -> Tensor:
    """The three losses, summed over all rows in which a decision was taken."""
    outputs = model(unroll.inputs, unroll.initial_state)
    logits = outputs.policy_logits[:-1]
    log_probs = compute_log_probs(action, logits, unroll.actions)
    behaviour_log_probs = compute_log_probs(action, unroll.logits, unroll.actions)
    values = outputs.values
    ratios = (log_probs - behaviour_log_probs).exp().detach()
    targets, advantages = compute_vtrace(unroll, ratios, values.detach(), config)
    counts = ~unroll.is_padding
    pg_loss = -(advantages * log_probs)[counts].sum()
    baseline_loss = 0.5 * ((targets - values[:-1]) ** 2)[counts].sum()
    entropy = compute_entropies(action, logits)[counts].sum()
    return pg_loss + config.baseline_cost * baseline_loss - config.entropy_cost * entropy


def compute_vtrace(
    unroll: Unroll, ratios: Tensor, values: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """V-trace backwards, one number at a time; values are [T+1, B]. Thresholds are all 1."""
    assert config.clip_rho_threshold == config.clip_pg_rho_threshold == config.clip_c_threshold == 1
    num_rows, num_columns = ratios.shape
    targets, advantages = torch.zeros(num_rows, num_columns), torch.zeros(num_rows, num_columns)
    rewards, discounts = unroll.rewards.tolist(), torch.where(unroll.terminated, 0.0, 1.0).tolist()
    is_padding, rhos, v = unroll.is_padding.tolist(), ratios.tolist(), values.tolist()
    for column in range(num_columns):
        next_target = v[num_rows][column]  # vs at observation T is the bootstrap value
        for row in reversed(range(num_rows)):
            here, there = v[row][column], v[row + 1][column]
            rho = 0.0 if is_padding[row][column] else min(1.0, rhos[row][column])
            discount = discounts[row][column] * config.discount
            reward = rewards[row][column]
            lambda_ = config.vtrace_lambda
            delta = rho * (reward + discount * there - here)
            q = reward + discount * (lambda_ * next_target + (1.0 - lambda_) * there)
            advantages[row, column] = rho * (q - here)
            next_target = here + delta + discount * lambda_ * rho * (next_target - there)
            targets[row, column] = next_target
    return targets, advantages
