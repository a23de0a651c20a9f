"""Environments as the seed's class takes them: env, eval_env and their spaces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from seed_agents import (
    SMALL,
    SpacesEnv,
    Trained,
    are_equal,
    make_agent,
    make_batch,
    make_scaled,
    weights_of,
)

from impala_common.errors import ConfigError, UnknownEnvironmentError
from impala_common.process.exit_codes import CONFIG, exit_code_of
from impala_common.process.passed_objects import unpack_object
from impala_common.run import metrics
from impala_common.run.metrics import read_metrics
from impala_server import IMPALA

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(
    ("env", "name", "num_slots"),
    [
        ("CartPole-v1", "CartPole-v1", 2),
        (lambda: gymnasium.make("CartPole-v1"), "object:factory", 2),
        (gymnasium.make("CartPole-v1"), "CartPole-v1", 2),
        (make_scaled(), "object:CartPole-v1", 2),
        (gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync"), "object:CartPole-v1", 3),
        (gymnasium.make_vec("CartPole-v1", 4), "CartPole-v1", 4),
    ],
    ids=["id", "factory", "env", "wrapped env", "vector env", "vector env without parts"],
)
def test_seed_row_env_may_be_all_that_makes_one(env: object, name: str, num_slots: int) -> None:
    arguments = {key: value for key, value in SMALL.items() if key != "envs_per_actor"}
    agent = IMPALA(
        env, config={"environment": {} if num_slots > 2 else {"envs_per_actor": 2}}, **arguments
    )

    assert agent.config.environment.env.rstrip("-0123456789") == name.rstrip("-0123456789")
    assert agent.config.environment.envs_per_actor == num_slots
    for (kind, key), data in agent._objects.items():
        if kind == "environment":
            made = unpack_object(key, data)()
            assert made.observation_space == gymnasium.make("CartPole-v1").observation_space
            assert made is not env


def test_seed_row_env_keeps_its_wrappers_in_what_actors_make() -> None:
    agent = make_agent(make_scaled())
    (data,) = agent._objects.values()

    env = unpack_object("env", data)()
    env.reset(seed=0)

    assert env.step(0)[1] == 10.0


def test_seed_row_env_that_is_none_is_refused_with_the_way_round() -> None:
    class OldGym:
        def reset(self) -> int:
            return 0

        def step(self, action: int) -> tuple[int, float, bool, dict[str, Any]]:
            return 0, 0.0, False, {}

    with pytest.raises(ConfigError, match=r"OldGym has reset and step but is no gymnasium\.Env"):
        make_agent(OldGym())
    with pytest.raises(ConfigError, match="a factory"):
        make_agent(42)


def test_seed_row_env_with_the_old_reset_says_what_reset_must_be_like() -> None:
    """Seen to fail with the way of old Gym's own classes named only. Actors end with its text."""

    class OldReset(gymnasium.Env[Any, Any]):
        observation_space = spaces.Box(-1, 1, (3,), np.float32)
        action_space = spaces.Discrete(2)

        def reset(self) -> Any:  # type: ignore[override]
            return np.zeros(3, np.float32)

        def step(self, action: Any) -> Any:
            return np.zeros(3, np.float32), 0.0, True, {}

    for env in (OldReset(), OldReset):
        agent = make_agent(env)
        with pytest.raises(
            UnknownEnvironmentError,
            match=r"reset takes no seed.*reset\(self, \*, seed=None, options",
        ) as caught:
            agent.eval(1)
        assert exit_code_of(caught.value) == CONFIG  # an actor is not started again


def test_seed_row_eval_env_is_where_eval_plays(trained: Trained) -> None:
    result = trained.agent.eval(4)

    assert result["episode_rewards"] == pytest.approx(10 * result["episode_lengths"])


def test_seed_row_eval_env_is_played_during_training_and_the_best_is_kept(tmp_path: Path) -> None:
    """By a process of its own, in eval_env: its rewards are ten times those of training."""
    agent = make_agent(eval_env=make_scaled, num_actors=1, run_dir=tmp_path / "run")
    best = agent.run_dir / "checkpoints" / "best"
    path = agent.run_dir / "metrics.jsonl"
    found: list[dict[str, Any]] = []

    def wait_for_an_evaluation() -> None:
        for _ in range(600):
            lines = read_metrics(path) if path.exists() else []
            found.extend(line for line in lines if metrics.EVALUATION_RETURN_MEAN in line)
            if found:
                assert best.exists(), "the line comes after the best that it names"
                break
            threading.Event().wait(0.05)
        agent.close()

    waiter = threading.Thread(target=wait_for_an_evaluation)
    waiter.start()
    result = agent.train(10_000_000, eval_interval=100, num_eval_episodes=2)
    waiter.join()

    mean = found[0][metrics.EVALUATION_RETURN_MEAN]
    assert mean == pytest.approx(10 * found[0][metrics.EVALUATION_LENGTH_MEAN])
    assert result.reason == "stopped"
    agent.load(best)
    assert 0 <= agent.global_step <= result.num_steps


def test_seed_row_eval_env_of_other_spaces_is_refused_at_construction() -> None:
    with pytest.raises(ConfigError, match=r"eval_env is 'Acrobot-v1'.*observation\.shape.*4.*6"):
        make_agent("CartPole-v1", eval_env="Acrobot-v1")


OBSERVATIONS: dict[str, Callable[[], spaces.Space[Any]]] = {
    "Box int16": lambda: spaces.Box(-5, 5, (3,), np.int16),
    "Discrete": lambda: spaces.Discrete(4, start=2),
    "Dict": lambda: spaces.Dict(a=spaces.Box(0, 1, (2,)), b=spaces.Discrete(3)),
    "Tuple": lambda: spaces.Tuple((spaces.Box(0, 1, (2,)), spaces.MultiBinary(3))),
}
ACTIONS: dict[str, Callable[[], spaces.Space[Any]]] = {
    "Discrete": lambda: spaces.Discrete(3, start=-1),
    "MultiDiscrete": lambda: spaces.MultiDiscrete([2, 3]),
    "MultiBinary": lambda: spaces.MultiBinary(3),
    "Box": lambda: spaces.Box(-2.0, 2.0, (2,)),
}


@pytest.mark.parametrize(
    ("observation", "action"),
    [("Box int16", action) for action in ACTIONS] + [(name, "Discrete") for name in OBSERVATIONS],
)
def test_seed_row_spaces_are_played_and_learned_from(observation: str, action: str) -> None:
    agent = make_agent(lambda: SpacesEnv(OBSERVATIONS[observation](), ACTIONS[action]()))
    before = weights_of(agent)

    metrics_of_update = agent.update(make_batch(agent))

    assert metrics_of_update["is_applied"]
    assert not are_equal(before, weights_of(agent))
