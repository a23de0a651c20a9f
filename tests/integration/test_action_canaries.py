"""Canaries of action spaces: bandits with a known answer, learned through real gRPC.

The best return is 1 (`impala_common.testing.action_bandits`); the environments refuse
actions that are not of their space. Actions are drawn, also when judged. "Planted" names
a fault put into the code to see the test fail, and what it then yielded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running_server import RunningServer, make_config

from impala_actor.evaluation.run_evaluation import evaluate_run

pytestmark = pytest.mark.timeout(60)

PREFIX = "impala_common.testing.action_bandits:"


def learn(
    path: Path,
    name: str,
    total_steps: int,
    seed: int = 1,
    learning_rate: float = 1e-2,
    **model: Any,
) -> float:
    """Returns the mean return of 500 drawn actions after training on so many steps."""
    config = make_config(
        job={"total_steps": total_steps, "seed": seed},
        environment={"envs_per_actor": 16},
        model=model,
        rollout={"unroll_length": 16, "batch_size": 8, "num_storages": 16},
        loss={"entropy_cost": 0.001},
        optimizer={"learning_rate": learning_rate},
    )
    with RunningServer(path, config) as server:
        server.run_actor(PREFIX + name)
        server.wait_finished()
        return server.evaluate(PREFIX + name, num_episodes=500, num_slots=50).return_mean


def evaluate_greedily(path: Path, name: str) -> float:
    evaluation = evaluate_run(
        path, num_episodes=100, num_slots=50, seed=7, env=PREFIX + name, is_greedy=True
    ).evaluation
    return evaluation.return_mean


def test_multi_discrete_bandit_is_solved(tmp_path: Path) -> None:
    """Chance is .35. Seen over seeds 1 to 5: .994 to .995; .95 is demanded.

    Planted: the log-probability of the first part only .52; starts not added: refused by the
    environment.
    """
    assert learn(tmp_path, "MultiDiscreteBandit-v0", 10_000) >= 0.95


def test_multi_binary_bandit_is_solved(tmp_path: Path) -> None:
    """Chance is .5; the previous action is an input. Seen: .980 to .985; .95 is demanded.

    Planted: flags drawn from -logit .02.
    """
    returns = learn(tmp_path, "MultiBinaryBandit-v0", 10_000, use_previous_action_and_reward=True)

    assert returns >= 0.95


def test_box_bandit_is_learned(tmp_path: Path) -> None:
    """Chance is .1, the best that ignores the context .7.

    Drawn actions pay for the standard deviation that is left after so few steps. Seen over seeds
    1 to 10: .800 to .806 drawn, .865 to .871 greedy; .75 and .82 are demanded. Planted: log_std
    exponentiated twice by the sampler .70.
    """
    returns = learn(tmp_path, "BoxBandit-v0", 15_000, learning_rate=5e-3)

    assert returns >= 0.75
    assert evaluate_greedily(tmp_path, "BoxBandit-v0") >= 0.82


def test_dict_bandit_is_solved(tmp_path: Path) -> None:
    """A number, a choice and flags at once; chance is .4.

    Seen: .950 to .952; .9 is demanded. Planted: the clipped action stored .81; the
    log-probability of the first part only .54.
    """
    returns = learn(tmp_path, "DictBandit-v0", 15_000, use_previous_action_and_reward=True)

    assert returns >= 0.9
