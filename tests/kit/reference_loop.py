"""IMPALA as one plain loop: the oracle of lockstep runs.

One process, one thread, no server and no wire: act T steps in every slot with the
weights at hand, take one optimizer step, or several where the settings ask for reuse, repeat.
Written from the papers (arXiv 1802.01561, remark 1; 1707.06347, equation 7) row by row and
column by column. It shares with the product
what is no part of the claim (networks, environment adapter, the policy's sampling)
and nothing else: no unroll builder, codec, storage, batch loader, V-trace, loss,
optimizer set-up, schedule or counter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from action_oracles import (
    compute_choice_entropies,
    compute_entropies,
    compute_kls,
    compute_log_probs,
)
from torch import Tensor

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_common.config import LossConfig, TrainConfig
from impala_common.models.contract import AgentModel, ModelInputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.policy import Policy
from impala_common.spec.action_spec import ActionSpec
from impala_common.spec.specs import UnrollSpec
from impala_server.learner.unroll_ring import count_unroll_bytes


class ReferenceRun(NamedTuple):
    """How the loop ended."""

    weights: dict[str, np.ndarray]
    num_updates: int
    num_steps: int
    num_optimizer_steps: int


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
    replay = _Replay(config, environment)
    generator = torch.Generator().manual_seed(job.seed)  # of the order of parts
    num_updates = num_steps = num_optimizer_steps = 0
    while num_steps < job.total_steps:
        policy.load({name: value.numpy() for name, value in model.state_dict().items()})
        unroll = player.play(config.rollout.unroll_length)
        reward_std = statistics.count(unroll, model)
        num_fresh_steps = int((~unroll.is_padding).sum())
        unroll = replay.mix(unroll)
        unroll = unroll._replace(rewards=unroll.rewards / reward_std)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1.0 - num_steps / job.total_steps)
        for one in make_losses(model, action, unroll, config, generator):
            optimizer.zero_grad()
            one.backward()
            norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
            for parameter in model.parameters():
                parameter.grad *= min(1.0, settings.max_grad_norm / (float(norm) + 1e-6))
            optimizer.step()
            num_optimizer_steps += 1
        num_updates += 1
        num_steps += num_fresh_steps
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    return ReferenceRun(weights, num_updates, num_steps, num_optimizer_steps)


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

    def count(self, unroll: Unroll, model: AgentModel) -> float:
        """Puts the statistics into the model; returns what rewards are divided by."""
        counts = (~unroll.is_padding).numpy()
        state = model.state_dict()  # the tensors themselves
        if self.observations is not None:
            self.observations.append(unroll.inputs.observations["observation"][:-1].numpy()[counts])
            _fill(state, "observation_moments.0", np.concatenate(self.observations))
        if self.sums is None:
            return 1.0
        for column in range(counts.shape[1]):
            total = 0.0
            for row in range(len(counts)):
                if unroll.inputs.is_first[row, column]:
                    total = 0.0
                if counts[row, column]:
                    total = float(unroll.rewards[row, column]) + self.discount * total
                    self.sums.append(total)
        _fill(state, "reward_moments", np.array(self.sums))
        return float(np.std(self.sums))


class _Replay:
    """Older unrolls, column by column; the oldest go first."""

    def __init__(self, config: TrainConfig, environment: EnvironmentAdapter) -> None:
        states = make_model(
            resolve_model_spec(config.model, environment.spec), environment.spec, 0
        ).agent_state_specs()
        spec = UnrollSpec(config.rollout.unroll_length, environment.spec, states)
        self.capacity = config.reuse.replay_capacity_bytes // count_unroll_bytes(spec)
        self.count = round(config.reuse.replay_ratio * config.rollout.batch_size)
        self.columns: dict[int, Unroll] = {}  # by place
        self.num_added = 0
        self.random = np.random.default_rng([config.job.seed, 0])

    def mix(self, unroll: Unroll) -> Unroll:
        """Returns the unroll with older ones behind it, and keeps it for later."""
        if not self.count:
            return unroll
        num_columns = unroll.rewards.shape[1]
        places = np.array(sorted(self.columns), np.int64)
        chosen = self.random.choice(places, min(self.count, len(places)), replace=False)
        parts = [unroll, *(self.columns[place] for place in chosen.tolist())]
        for column in range(num_columns):
            place = self.num_added % self.capacity
            self.columns[place] = _change(unroll, lambda leaf, n=column: leaf[:, n : n + 1])
            self.num_added += 1
        return _join(parts)


def _change(unroll: Unroll, change: Callable[[Tensor], Tensor]) -> Unroll:
    inputs = unroll.inputs
    return Unroll(
        ModelInputs(
            {name: change(leaf) for name, leaf in inputs.observations.items()},
            *map(change, inputs[1:]),
        ),
        tuple(map(change, unroll.initial_state)),
        *map(change, unroll[2:]),
    )


def _join(unrolls: list[Unroll]) -> Unroll:
    def cat(leaves: list[Tensor]) -> Tensor:
        return torch.cat(leaves, dim=1)

    first = unrolls[0].inputs
    return Unroll(
        ModelInputs(
            {
                name: cat([one.inputs.observations[name] for one in unrolls])
                for name in first.observations
            },
            *(cat([one.inputs[n] for one in unrolls]) for n in range(1, len(first))),
        ),
        tuple(
            cat(list(states)) for states in zip(*(u.initial_state for u in unrolls), strict=True)
        ),
        *(cat([one[n] for one in unrolls]) for n in range(2, len(unrolls[0]))),
    )


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


def make_losses(
    model: AgentModel,
    action: ActionSpec,
    unroll: Unroll,
    config: TrainConfig,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Yields the loss of each optimizer step of one update; each is of the weights as they are.

    A part is a choice of rows: the network runs over all of them each time.
    """
    reuse = config.reuse
    counts = ~unroll.is_padding
    uses_own_targets = reuse.parts == 1 or (
        reuse.part_kind == "unrolls" and reuse.advantage_normalisation != "batch"
    )
    uses_own_targets = uses_own_targets and (reuse.vtrace_per_pass or reuse.is_single_step)
    targets: tuple[Tensor, Tensor] | None = None
    num_made = 0
    for _ in range(reuse.passes):
        if not uses_own_targets and (targets is None or reuse.vtrace_per_pass):
            with torch.no_grad():
                targets = compute_targets(model, action, unroll, config.loss)
        for chosen in choose_rows(counts, config, generator):
            part = Rows(model, action, unroll)
            if reuse.kl_stop and num_made and float(part.kls[chosen].mean()) > reuse.kl_stop:
                return
            vs, advantages = targets or part.targets(config.loss)
            if reuse.advantage_normalisation != "none":
                whole = counts if reuse.advantage_normalisation == "batch" else chosen
                these = advantages[whole]
                advantages = (advantages - these.mean()) / (these.std(correction=0) + 1e-8)
            yield compute_loss(part, chosen, vs, advantages, config)
            num_made += 1


def choose_rows(
    counts: Tensor, config: TrainConfig, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yields, for each part of a pass, which rows are in it, bool [T, B]; padding never is."""
    reuse = config.reuse
    if reuse.parts == 1:
        yield counts
        return
    if reuse.part_kind == "unrolls":
        for columns in torch.randperm(counts.shape[1], generator=generator).tensor_split(
            reuse.parts
        ):
            chosen = torch.zeros_like(counts)
            chosen[:, columns] = counts[:, columns]
            yield chosen
        return
    places = counts.flatten().nonzero().flatten()
    order = torch.randperm(len(places), generator=generator)
    for some in places[order].tensor_split(reuse.parts):
        chosen = torch.zeros_like(counts).flatten()
        chosen[some] = True
        yield chosen.view_as(counts)


class Rows:
    """The network's outputs at all rows of an unroll, and what follows from them."""

    def __init__(self, model: AgentModel, action: ActionSpec, unroll: Unroll) -> None:
        self.unroll = unroll
        outputs = model(unroll.inputs, unroll.initial_state)
        logits = outputs.policy_logits[:-1]
        self.values = outputs.values
        self.log_probs = compute_log_probs(action, logits, unroll.actions)
        behaviour_log_probs = compute_log_probs(action, unroll.logits, unroll.actions)
        self.ratios = (self.log_probs - behaviour_log_probs).exp()
        self.entropies = compute_entropies(action, logits)
        self.choice_entropies = compute_choice_entropies(action, logits)
        self.kls = compute_kls(action, unroll.logits, logits.detach())

    def targets(self, config: LossConfig) -> tuple[Tensor, Tensor]:
        """V-trace's targets of these outputs: vs and q - V."""
        return compute_vtrace(self.unroll, self.ratios.detach(), self.values.detach(), config)


def compute_targets(
    model: AgentModel, action: ActionSpec, unroll: Unroll, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """V-trace's targets with the network as it is."""
    return Rows(model, action, unroll).targets(config)


def compute_loss(
    part: Rows, chosen: Tensor, vs: Tensor, advantages: Tensor, config: TrainConfig
) -> Tensor:
    """The three losses, summed or averaged over the chosen rows."""
    loss, clip = config.loss, config.reuse.surrogate_clip
    if clip:
        ratios = part.ratios
        pg_terms = -torch.min(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)
    else:
        pg_terms = -(part.ratios.detach().clamp(max=1.0) * advantages * part.log_probs)
    pg_loss = pg_terms[chosen].sum()
    baseline_loss = 0.5 * ((vs - part.values[:-1]) ** 2)[chosen].sum()
    entropy = part.entropies[chosen].sum()
    total = pg_loss + loss.baseline_cost * baseline_loss - loss.entropy_cost * entropy
    if loss.entropy_floor:
        entropies, largest = part.choice_entropies
        low = torch.min(entropies, loss.entropy_floor * largest).sum(-1)[chosen].sum()
        total = total - loss.entropy_floor_cost * low
    return total / chosen.sum() if loss.loss_reduction == "mean" else total


def compute_vtrace(
    unroll: Unroll, ratios: Tensor, values: Tensor, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """V-trace backwards, one number at a time; values are [T+1, B]. Thresholds are all 1.

    Returns vs and q - V, without the ratio that weights it.
    """
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
            advantages[row, column] = q - here
            next_target = here + delta + discount * lambda_ * rho * (next_target - there)
            targets[row, column] = next_target
    return targets, advantages
