"""The small test environments reveal the mistakes they are made for.

A table of values and preferences stands for the network, V-trace for the learner; the mistakes
are planted in what is taken for padding and for termination.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch

from impala_actor.environments.episode_statistics import EpisodeTracker
from impala_actor.environments.factory import make_environment
from impala_common.numerics.vtrace import from_importance_weights
from impala_common.testing import environments
from impala_common.testing.environments import BaitEnv, RepeatCueEnv

MODULE = "impala_common.testing.environments:"
UNROLL_LENGTH, NUM_SLOTS, DISCOUNT = 20, 8, 0.9


class Learned(NamedTuple):
    mean_return: float
    values: list[float]


def learn(name: str, mistake: str = "none", num_updates: int = 200) -> Learned:
    """Trains a table on an environment with one-hot observations."""
    random = np.random.default_rng(0)
    environment = make_environment(MODULE + name, NUM_SLOTS)
    state = environment.reset(0)["observation"].argmax(1)
    tracker = EpisodeTracker(NUM_SLOTS)
    width = environment.spec.observation_leaves[0].shape[0]
    preferences = torch.zeros(width, environment.spec.action.num_logits, requires_grad=True)
    table = torch.zeros(width, requires_grad=True)
    optimizer = torch.optim.Adam([preferences, table], lr=0.1)
    returns: list[float] = []
    for _ in range(num_updates):
        policy = torch.softmax(preferences, 1).detach().numpy().cumsum(1)
        states, rows = [state], []
        for _ in range(UNROLL_LENGTH):
            draws = random.random((NUM_SLOTS, 1))
            actions = (draws > policy[state]).sum(1).clip(max=policy.shape[1] - 1)
            step = environment.step(actions)
            returns += [record.episode_return for record in tracker.update(step)]
            state = step.observations["observation"].argmax(1)
            states.append(state)
            rows.append((actions, step.rewards, step.terminated, step.truncated, step.is_padding))
        actions_taken, rewards, terminated, truncated, is_padding = (
            torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)
        )
        if mistake == "trains on padding":
            is_padding = torch.zeros_like(is_padding)
        if mistake == "masks the row after":
            is_padding = torch.cat([torch.zeros(1, NUM_SLOTS, dtype=torch.bool), is_padding[:-1]])
        if mistake == "truncation is death":
            terminated = terminated | truncated
        visited = torch.from_numpy(np.stack(states))
        log_policy = torch.log_softmax(preferences, 1)[visited[:-1]]
        values = table[visited]
        targets = from_importance_weights(
            torch.zeros(UNROLL_LENGTH, NUM_SLOTS).masked_fill(is_padding, -torch.inf),
            DISCOUNT * (~terminated).float(),
            rewards,
            values[:-1].detach(),
            values[-1].detach(),
        )
        taken = log_policy.gather(-1, actions_taken.unsqueeze(-1)).squeeze(-1)
        loss = (targets.vs - values[:-1]).square().mean() - (targets.pg_advantages * taken).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Learned(float(np.mean(returns[-100:])), table.tolist())


def test_bait_without_mistake_is_left_alone() -> None:
    learned = learn("Bait-v0")

    assert learned.mean_return == pytest.approx(BaitEnv.BEST_RETURN, abs=0.05)
    assert learned.values == pytest.approx([1.9, 1.0], abs=0.05)


@pytest.mark.parametrize("mistake", ["trains on padding", "masks the row after"])
def test_bait_with_mistake_about_padding_is_taken(mistake: str) -> None:
    learned = learn("Bait-v0", mistake)

    assert learned.mean_return == pytest.approx(1.0, abs=0.05)
    assert min(learned.values) > 2.5


@pytest.mark.parametrize(("mistake", "value"), [("none", 10.0), ("truncation is death", 2.66)])
def test_constant_reward_shows_what_truncation_is_taken_for(mistake: str, value: float) -> None:
    assert learn("ConstantReward-v0", mistake).values[0] == pytest.approx(value, abs=0.2)


def test_contextual_bandit_is_learned() -> None:
    assert learn("ContextualBandit-v0").mean_return > 0.97


def test_repeat_cue_pays_for_memory_only() -> None:
    env = RepeatCueEnv(delay=3, num_cues=4, num_questions=5)
    observation, _ = env.reset(seed=0)
    cue, cue_times, question_times, total = 0, [], [], 0.0

    for time in range(100):
        if observation[:-1].any():
            cue = int(observation[:-1].argmax())
            cue_times.append(time)
        if observation[-1]:
            question_times.append(time)
        observation, reward, terminated, truncated, _ = env.step(np.int64(cue))
        total += reward
        assert not truncated
        if terminated:
            break

    assert total == 5
    assert [time + 3 for time in cue_times] == question_times
    assert len({second - first for first, second in itertools.pairwise(cue_times)}) > 1


def test_register_twice_is_harmless() -> None:
    environments.register()

    assert gymnasium.make(MODULE + "RepeatCueLong-v0").action_space.n == 4  # type: ignore[attr-defined]


def test_position_cart_pole_shows_cart_pole_without_velocities_for_500_steps() -> None:
    """Seen to fail with the angular velocity shown, and with the time limit left out."""
    env = gymnasium.make(MODULE + "PositionCartPole-v1")
    whole = gymnasium.make("CartPole-v1")
    shown, state = env.reset(seed=4)[0], whole.reset(seed=4)[0]

    for time in range(1, 501):
        assert env.observation_space.contains(shown)
        np.testing.assert_allclose(shown, [state[0] / 2.4, state[2] / 0.20943951], rtol=1e-6)
        action = np.int64(state[2] + state[3] > 0)
        shown, _, terminated, truncated, _ = env.step(action)
        state = whole.step(action)[0]
        assert not terminated
        assert truncated == (time == 500)
