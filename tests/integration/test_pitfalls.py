"""Pitfalls of IMPALA, checked in the batches that the learner receives; see docs/pitfalls.md.

Batches are recorded as the learner is about to train on them. In lockstep, column b is
environment slot b, and each batch goes on where the one before ended. [n] numbers the
pitfalls; "Planted" names faults that were put into the code to see the test fail.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from running_server import TINY, RunningServer, make_config
from torch import Tensor, nn

from impala_actor.acting.learner_client import LearnerClient
from impala_actor.environments.factory import make_environment
from impala_common.config import EnvironmentConfig, OptimizerConfig, TrainConfig
from impala_common.run import metrics
from impala_common.testing.environments import CountingEnv, RepeatCueEnv
from impala_server.learner.batch_loader import Batch
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.learner import Learner
from impala_server.learner.optimizers import compute_learning_rate, make_optimizer
from impala_server.learner.update import Updater
from impala_server.learner.update_result import UpdateResult
from impala_server.storage.handoff import FinishedEpisode

pytestmark = pytest.mark.timeout(60)

EPISODE_LENGTH = 5
ACTION_START = 3
SHORT_CUE = "PitfallsRepeatCue-v0"
"""Episodes of about a dozen steps, that is, several resets in an unroll of 20."""


def counting_id(is_terminated: bool) -> str:
    return f"PitfallsCounting{'Terminated' if is_terminated else 'Truncated'}-v0"


for _is_terminated in (False, True):
    gymnasium.register(
        counting_id(_is_terminated),
        CountingEnv,
        kwargs={
            "episode_length": EPISODE_LENGTH,
            "is_terminated": _is_terminated,
            "action_start": ACTION_START,
        },
    )
gymnasium.register(SHORT_CUE, RepeatCueEnv, kwargs={"delay": 3, "num_questions": 2})


class Recorded(NamedTuple):
    """One batch as it was trained on, all of it copied.

    `target_policy_logits` [T, B, A] are the network's, just before the update at `version`.
    """

    batch: Batch
    episodes: list[FinishedEpisode]
    version: int
    target_policy_logits: Tensor


class Recorder:
    """Copies every batch that is trained on from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[Recorded] = []
        train, apply = Learner.train, Updater.apply
        told: dict[str, Any] = {}

        def record_train(learner: Learner, taken: TakenBatch) -> bool:
            told.update(taken=taken, version=learner.state.counters.policy_version)
            return train(learner, taken)

        def record_apply(
            updater: Updater, batch: Batch, learning_rate: float, *more: Any
        ) -> UpdateResult:
            with torch.no_grad():
                outputs = updater._model(batch.inputs, batch.initial_agent_state)
            logits = outputs.policy_logits[:-1].clone()
            episodes = told["taken"].episodes
            self.batches.append(Recorded(_copy(batch), episodes, told["version"], logits))
            return apply(updater, batch, learning_rate, *more)

        monkeypatch.setattr(Learner, "train", record_train)
        monkeypatch.setattr(Updater, "apply", record_apply)


def _copy(value: Any) -> Any:
    """Storage is used again: tensors are copied, wherever they are in `value`."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    if isinstance(value, tuple):
        copies = [_copy(item) for item in value]
        return type(value)(*copies) if hasattr(value, "_fields") else tuple(copies)
    return value


def make_lockstep_config(**sections: dict[str, Any]) -> TrainConfig:
    """Three slots, unrolls of 7 steps: no multiple of an episode and its padding row."""
    settings: dict[str, dict[str, Any]] = {
        "job": {"total_steps": 600, "lockstep": True, "seed": 5},
        "environment": {"envs_per_actor": 3},
        "model": {"use_previous_action_and_reward": True},
        "rollout": {"unroll_length": 7, "batch_size": 3, "num_storages": 6},
    }
    return make_config(**(settings | sections))


@pytest.mark.parametrize("is_terminated", [False, True], ids=["truncated", "terminated"])
def test_every_index_through_the_wire_is_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_terminated: bool
) -> None:
    """[1, 3] Everything is read off the numbers that CountingEnv shows.

    Planted: in the unroll builder, one row late or early: rewards, actions, is_first, is_padding
    (the first real row masked); truncated episodes sent as terminated.
    """
    recorder = Recorder(monkeypatch)
    with RunningServer(tmp_path, make_lockstep_config()) as server:
        server.run_actor(counting_id(is_terminated))
        server.wait_finished()
        trained_steps = server.checkpoint().step
    batches = [recorded.batch for recorded in recorder.batches]

    for batch in batches:
        inputs = batch.inputs
        t, episode, last_action = inputs.observations["observation"].unbind(-1)  # [T+1, B]
        is_padding, is_first = batch.is_padding, inputs.is_first
        is_over = t == EPISODE_LENGTH
        # An observation t is followed by t + 1 of the same episode, or by 0 of the next.
        assert (is_padding == is_over[:-1]).all()
        torch.testing.assert_close(t[1:], torch.where(is_padding, 0.0, t[:-1] + 1))
        torch.testing.assert_close(episode[1:], episode[:-1] + is_padding)
        assert (is_first == (t == 0)).all()
        # Row t has the action that the next observation remembers, and what it led to.
        remembered = last_action[1:] - ACTION_START
        assert (batch.actions.float() == remembered)[~is_padding].all()
        torch.testing.assert_close(batch.rewards, torch.where(is_padding, 0.0, 10 * t[1:]))
        assert (batch.terminated == (is_over[1:] & is_terminated)).all()
        # The network is told what led to each observation, and nothing at a first one.
        feedback = torch.where(is_first, 0.0, last_action - ACTION_START)
        assert (inputs.previous_actions.float() == feedback).all()
        torch.testing.assert_close(inputs.previous_rewards, 10 * t)
    # Observation T of an unroll is observation 0 of the slot's next one; nothing is lost between.
    for batch, following in itertools.pairwise(batches):
        end, start = batch.inputs, following.inputs
        last, first = end.observations["observation"][-1], start.observations["observation"][0]
        torch.testing.assert_close(first, last)
        assert (start.is_first[0] == end.is_first[-1]).all()
        assert (start.previous_actions[0] == end.previous_actions[-1]).all()
        assert (start.previous_rewards[0] == end.previous_rewards[-1]).all()
    # Steps and episodes are counted without padding.
    num_steps = sum(int((~batch.is_padding).sum()) for batch in batches)
    assert trained_steps == num_steps == sum(batch.num_steps for batch in batches)
    episodes = [episode for recorded in recorder.batches for episode in recorded.episodes]
    best = 10.0 * sum(range(1, EPISODE_LENGTH + 1))
    assert set(episodes) == {FinishedEpisode(best, EPISODE_LENGTH)}
    ends = sum(int(batch.is_padding.sum()) for batch in batches)
    assert ends <= len(episodes) <= ends + 3  # a padding row may stand in the next unroll


@pytest.mark.parametrize(
    ("recurrence", "normalise"),
    [("none", False), ("lstm", False), ("gru", True)],
    ids=["mlp", "lstm", "normalised-gru"],
)
def test_learner_recomputes_what_the_actor_drew_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recurrence: str, normalise: bool
) -> None:
    """[1, 3, 4] Weights of version v over unrolls of version v give the actor's logits again.

    True only if observations, resets, carried state, previous actions and rewards and the
    weights themselves are all where they belong, on both sides. Differences seen: none;
    2e-5 is allowed for other processors. The logits' standard deviation is .14 and .16.

    Planted: actions, is_first or logits a row late; reset after the first observation instead of
    before it; no reset in the actor; state sent as zeros; state zeroed by the learner; versions
    not stamped; weights never taken over by the policy; statistics of observations not published.
    """
    config = make_lockstep_config(
        job={"total_steps": 6_000, "lockstep": True, "seed": 5},
        environment={"envs_per_actor": 8},
        model={
            "recurrence": recurrence,
            "normalise_observations": normalise,
            "use_previous_action_and_reward": True,
            "init_method": "identity",  # logits that differ from the first update on
        },
        rollout={"unroll_length": 20, "batch_size": 8, "num_storages": 16},
        optimizer={"learning_rate": 2e-2},
    )
    recorder = Recorder(monkeypatch)
    with RunningServer(tmp_path, config) as server:
        server.run_actor(SHORT_CUE)
        server.wait_finished()

    for recorded in recorder.batches:
        batch = recorded.batch
        assert (batch.policy_versions == recorded.version).all()
        counts = ~batch.is_padding
        torch.testing.assert_close(
            batch.behaviour_policy_logits[counts],
            recorded.target_policy_logits[counts],
            rtol=1e-5,
            atol=2e-5,
        )
    # It would be true of anything if the network were blind: its logits must vary.
    last = recorder.batches[-1].batch
    assert last.behaviour_policy_logits.std(dim=(0, 1)).max() > 0.05
    if recurrence != "none":
        states = torch.cat([recorded.batch.initial_agent_state[0] for recorded in recorder.batches])
        assert states[8:].abs().mean() > 0.05
    assert any(recorded.batch.inputs.is_first[1:-1].any() for recorded in recorder.batches)


def test_lag_and_ratios_are_stamped_and_reported_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[5, 11] With an actor that runs freely: the metrics are what the batches say.

    Planted: lag counted from the version after the update; ratios of the target policy to itself;
    weights never taken over by the policy.
    """
    config = make_config(
        job={"total_steps": 6_000, "seed": 5},
        environment={"envs_per_actor": 4},  # two messages to a batch: the second lags
        optimizer={"learning_rate": 1e-2},
        checkpoint={"log_interval_s": 3600.0, "tensorboard": False},  # one line, at the end
    )
    recorder = Recorder(monkeypatch)
    with RunningServer(tmp_path, config) as server:
        server.run_actor("CartPole-v1")
        server.wait_finished()
        (line,) = server.metrics()
        final = {name: torch.from_numpy(array) for name, array in server.weights().items()}

    lags, mean_ratios, kls = [], [], []
    for recorded in recorder.batches:
        batch, counts = recorded.batch, ~recorded.batch.is_padding
        lags.append(recorded.version - batch.policy_versions)
        log_pi = recorded.target_policy_logits.log_softmax(-1)
        log_mu = batch.behaviour_policy_logits.log_softmax(-1)
        log_ratios = (log_pi - log_mu).gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        mean_ratios.append(log_ratios.exp()[counts].mean().item())
        kls.append((log_mu.exp() * (log_mu - log_pi)).sum(-1)[counts].mean().item())
        if lags[-1].max() == 0:
            torch.testing.assert_close(log_ratios[counts].exp(), torch.ones(int(counts.sum())))
    assert min(lag.min() for lag in lags) >= 0
    assert line[metrics.POLICY_LAG_MAX] == max(lag.max() for lag in lags) >= 1
    assert line[metrics.POLICY_LAG_MEAN] == pytest.approx(np.mean(lags))
    assert line[metrics.RHO_MEAN] == pytest.approx(np.mean(mean_ratios), rel=1e-4)
    assert line[metrics.KL] == pytest.approx(np.mean(kls), rel=1e-3, abs=1e-6)
    # The policy is not frozen: where unrolls lag, ratios leave 1, and its weights have moved.
    lagging = [
        abs(ratio - 1.0) for ratio, lag in zip(mean_ratios, lags, strict=True) if lag.max() > 0
    ]
    assert max(lagging) > 1e-4
    assert line[metrics.KL] > 1e-6
    assert final["policy_head.weight"].abs().max() > 0.05  # .01 or so at the start


def test_seeds_differ_between_actors_slots_and_lives(tmp_path: Path) -> None:
    """[14] Register hands out seeds; the same again for the same run, none twice.

    Planted: without the actor; without its life; without the life of the learner.
    """
    env = TINY + "Counting-v0"
    with contextlib.closing(make_environment(env, 1, EnvironmentConfig(), 1)) as environment:
        spec = environment.spec

    def register(server: RunningServer, actor_id: str) -> int:
        client = LearnerClient(server.address, actor_id, connect_timeout_s=10.0)
        with contextlib.closing(client):
            return client.register(spec, 1).seed

    def play(path: Path, run_seed: int) -> list[int]:
        """Two actors, the first of them twice, in each of two lives of the learner."""
        seeds = []
        for _ in range(2):
            with RunningServer(path, make_config(job={"seed": run_seed})) as server:
                seeds += [register(server, actor_id) for actor_id in ("a", "b", "a")]
                server.stop()
        return seeds

    seeds = play(tmp_path / "run", run_seed=1)
    again = play(tmp_path / "again", run_seed=1)
    other = play(tmp_path / "other", run_seed=2)

    assert seeds == again
    assert len({*seeds, *other}) == 12
    # What an actor seeds its slots with keeps 31 bits of it.
    assert len({seed % 2**31 for seed in (*seeds, *other)}) == 12


def test_no_two_slots_of_two_actors_see_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[14] Contexts of the bandit depend on nothing but the seed of the slot.

    Planted: all actors seeded alike; all slots of an actor seeded alike.
    """
    config = make_config(
        job={"total_steps": 4_000},
        environment={"envs_per_actor": 4},
        rollout={"unroll_length": 64, "batch_size": 8, "num_storages": 16},
    )
    recorder = Recorder(monkeypatch)
    with RunningServer(tmp_path, config) as server:
        actors = [server.run_actor(TINY + "ContextualBandit-v0") for _ in range(2)]
        server.wait_finished()

    columns = [
        tuple(contexts.argmax(-1).tolist())
        for recorded in recorder.batches
        for contexts in recorded.batch.inputs.observations["observation"].unbind(1)
    ]
    assert all(actor.actor.num_steps > 0 for actor in actors)
    assert len(columns) >= 64
    assert len(set(columns)) == len(columns)


def test_rmsprop_is_torchs_and_not_tensorflows() -> None:
    """[7] Three steps by hand: eps outside the root, the average from 0."""
    config = OptimizerConfig(optimizer="rmsprop", learning_rate=0.1, eps=0.01, rmsprop_alpha=0.9)
    model = nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer(config, model)
    nn.init.constant_(model.weight, 2.0)
    gradients = [0.5, -1.5, 0.02]

    weight = tensorflows = 2.0
    average, tensorflows_average = 0.0, 1.0
    for gradient in gradients:
        average = 0.9 * average + 0.1 * gradient**2
        weight -= 0.1 * gradient / (average**0.5 + 0.01)
        tensorflows_average = 0.9 * tensorflows_average + 0.1 * gradient**2
        tensorflows -= 0.1 * gradient / (tensorflows_average + 0.01) ** 0.5
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()

    assert model.weight.item() == pytest.approx(weight, rel=1e-6)
    assert abs(weight - tensorflows) > 0.01


def test_learning_rate_schedule_is_a_function_of_trained_steps() -> None:
    """[10] Linear from learning_rate to 0 at total_steps, never below; or constant."""
    linear = OptimizerConfig(learning_rate=0.4)
    constant = OptimizerConfig(learning_rate=0.4, learning_rate_schedule="constant")

    rates = [compute_learning_rate(linear, steps, 1000) for steps in (0, 250, 999, 1000, 1100)]

    assert rates == pytest.approx([0.4, 0.3, 0.0004, 0.0, 0.0])
    assert compute_learning_rate(constant, 999, 1000) == 0.4


def test_pitfalls_table_names_tests_that_exist() -> None:
    """Planted: a name misspelt in the table."""
    root = Path(__file__).parents[2]
    existing = {
        node.name
        for path in (root / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    text = (root / "docs" / "pitfalls.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]

    named = {row[0]: re.findall(r"`(test_\w+)`", row[3]) for row in rows[1:]}

    assert list(named) == [str(number) for number in range(1, 16)]
    for number, names in named.items():
        assert names, f"pitfall {number} names no test"
        assert set(names) <= existing, f"pitfall {number}: {set(names) - existing}"
