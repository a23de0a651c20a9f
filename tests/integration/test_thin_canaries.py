"""The canaries of test_canaries.py through a policy server: same tasks, steps and thresholds.

Memory, previous action and rows are the policy server's here. Two clients play, except
where memory needs many steps: so batches and unrolls hold slots of both.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from canaries import (
    MEMORY_BEST_RETURN,
    MEMORY_ENV,
    compute_values,
    make_canary_config,
    make_memory_config,
)
from running_policy_server import RunningPolicyServer
from running_server import TINY, RunningServer

from impala_common.config import TrainConfig
from impala_common.testing.environments import BaitEnv
from impala_thin import Environment
from impala_thin.gymnasium_driver import make_vector, play_vector

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def fair_threads() -> Iterator[None]:
    """Lets threads take turns ten times as often: client, policy server and learner are threads."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 10)
    yield
    sys.setswitchinterval(before)


def train(path: Path, config: TrainConfig, env: str, num_clients: int = 2) -> RunningServer:
    """Trains with 32 slots of thin actors, and returns the server of the finished run."""
    with (
        RunningServer(path, config) as server,
        RunningPolicyServer(server.address) as policy,
    ):
        threads = [
            threading.Thread(target=play, args=(policy, env, 32 // num_clients, seed))
            for seed in range(num_clients)
        ]
        for thread in threads:
            thread.start()
        server.wait_finished(500.0)
        for thread in threads:
            thread.join(20.0)
            assert not thread.is_alive()
        policy.join()
    return server


def play(policy: RunningPolicyServer, env: str, num_slots: int, seed: int) -> None:
    vector_env = make_vector(env, num_slots, {})
    environment = Environment.from_spaces(
        vector_env.single_observation_space, vector_env.single_action_space
    )
    with policy.client(environment, num_slots) as client:
        play_vector(vector_env, client, seed=seed)
    vector_env.close()


@pytest.mark.extended
def test_contextual_bandit_is_solved(tmp_path: Path) -> None:
    """Alignment. Seen: .998; planted, the reward one row early: .25."""
    env = TINY + "ContextualBandit-v0"
    config = make_canary_config(20_000, optimizer={"learning_rate": 2e-2})

    server = train(tmp_path, config, env)

    assert server.evaluate(env, num_episodes=500, num_slots=50).return_mean >= 0.97


@pytest.mark.extended
def test_constant_reward_with_truncation_is_worth_ten(tmp_path: Path) -> None:
    config = make_canary_config(50_000, loss={"discount": 0.9}, optimizer={"learning_rate": 1e-2})

    server = train(tmp_path, config, TINY + "ConstantReward-v0")

    (value,) = compute_values(server.model(), [[1.0]])
    assert value == pytest.approx(10.0, rel=0.02)


def test_bait_of_the_next_episode_is_not_taken(tmp_path: Path) -> None:
    env = TINY + "Bait-v0"
    config = make_canary_config(30_000, loss={"discount": 0.9}, optimizer={"learning_rate": 1e-2})

    server = train(tmp_path, config, env)

    evaluation = server.evaluate(env, num_episodes=500, num_slots=50)
    assert evaluation.return_mean >= BaitEnv.BEST_RETURN - 0.15


@pytest.mark.extended
def test_cue_is_remembered_across_unrolls_with_memory_on_the_server(tmp_path: Path) -> None:
    server = train(tmp_path, make_memory_config("lstm"), MEMORY_ENV, num_clients=1)

    evaluation = server.evaluate(MEMORY_ENV, num_episodes=100, num_slots=50)
    assert evaluation.return_mean >= 0.95 * MEMORY_BEST_RETURN
