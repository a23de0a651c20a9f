"""Each argument of the seed's class, by the name it has there: what it promises, done.

One agent trains for the whole module; what needs no processes is tested on agents that were
never trained. Its methods are in test_seed_methods.py; the rows are those of docs/migration.md.
"""

from __future__ import annotations

import inspect
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from harness import RunningServer
from seed_agents import (
    SMALL,
    STEPS,
    SpacesEnv,
    Trained,
    are_equal,
    make_agent,
    make_batch,
    make_images,
    make_scaled,
    update_once,
    weights_of,
)
from torch import nn

from impala_common import metrics
from impala_common.errors import ConfigError, UnknownEnvironmentError
from impala_common.exit_codes import CONFIG, exit_code_of
from impala_common.inherited_objects import unpack_object
from impala_common.metrics import read_metrics
from impala_common.run_directory import RunDirectory
from impala_server import IMPALA

pytestmark = pytest.mark.timeout(180)

SEED_DEFAULTS = {
    "env": inspect.Parameter.empty,
    "eval_env": None,
    "tag": "default",
    "seed": 1,
    "device": "cpu",
    "num_steps": 80,
    "num_actors": 45,
    "num_learners": 4,
    "num_storages": 60,
    "feature_dim": 512,
    "batch_size": 4,
    "lr": 4e-4,
    "eps": 0.01,
    "hidden_dim": 512,
    "use_lstm": False,
    "ent_coef": 0.01,
    "baseline_coef": 0.5,
    "max_grad_norm": 40,
    "discount": 0.99,
    "network_init_method": "identity",
    "init_fn": None,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("seed"))


def test_seed_row_class_takes_the_seeds_arguments_in_its_order_with_its_defaults() -> None:
    parameters = list(inspect.signature(IMPALA).parameters.values())
    by_position = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert [p.name for p in by_position] == list(SEED_DEFAULTS)
    agent = IMPALA("CartPole-v1")
    shown = {p.name: getattr(p.default, "value", p.default) for p in by_position}
    assert shown == SEED_DEFAULTS
    assert agent.config.rollout.unroll_length == 80
    assert agent.config.optimizer.learning_rate == 4e-4


def test_seed_row_class_trains_through_a_learner_server_and_actor_processes(
    trained: Trained,
) -> None:
    logs = {path.name for path in trained.run.log_path.iterdir()}

    assert logs >= {"learner.log", "front-end.log", "actor-0.log", "actor-1.log"}
    assert trained.lines[-1][metrics.UNROLLS_ACCEPTED] >= STEPS / SMALL["num_steps"]


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
    found: list[dict[str, Any]] = []

    def wait_for_an_evaluation() -> None:
        for _ in range(600):
            if best.exists():
                lines = read_metrics(agent.run_dir / "metrics.jsonl")
                found.extend(line for line in lines if metrics.EVALUATION_RETURN_MEAN in line)
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


def test_seed_row_tag_names_the_folder_and_leaves_the_working_directory(trained: Trained) -> None:
    assert "my-tag" in IMPALA("CartPole-v1", tag="my tag").run_dir.name
    assert os.getcwd() == trained.cwd


def test_seed_row_seed_decides_the_network_the_learner_begins_with(trained: Trained) -> None:
    """Seen failing with seed + 1 in the agent's own network."""
    first = trained.checkpoints[0]

    assert first.step == 0
    assert are_equal(first.tensors["weights"], trained.initial_weights)
    assert are_equal(weights_of(make_agent(seed=7)), trained.initial_weights)
    assert not are_equal(weights_of(make_agent(seed=8)), trained.initial_weights)


def test_seed_row_seed_decides_evaluation(trained: Trained) -> None:
    assert trained.agent.eval(4)["returns"] == trained.agent.eval(4)["returns"]


def test_seed_row_device_is_where_the_network_is() -> None:
    assert next(make_agent(device="cpu").network.parameters()).device.type == "cpu"
    assert make_agent(device="auto").config.job.device == "auto"
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        make_agent(device="tpu")


def test_seed_row_num_steps_and_batch_size_make_an_update(trained: Trained) -> None:
    """Seen failing with batch_size and num_steps exchanged."""
    counters = trained.checkpoints[-1].state["counters"]

    assert counters["trained_unrolls"] == 4 * counters["policy_version"]
    # Every row but padding is a step: an episode of at least 8 steps has one padding row.
    steps_per_unroll = counters["trained_steps"] / counters["trained_unrolls"]
    assert 10 * 8 / 9 <= steps_per_unroll <= 10


def test_seed_row_num_actors_take_part(tmp_path: Path) -> None:
    """However late the second is. Seen failing with one actor fewer started."""
    agent = IMPALA("CartPole-v1", run_dir=tmp_path / "run", **SMALL)
    trainer = threading.Thread(target=agent.train, args=(10**9,), kwargs={"log_interval": 0.2})
    path = RunDirectory(tmp_path / "run").metrics_path
    deadline_s = time.monotonic() + 60.0
    num_connected: set[float] = set()
    with agent:
        trainer.start()
        while 2 not in num_connected and time.monotonic() < deadline_s:
            threading.Event().wait(0.05)
            lines = read_metrics(path) if path.exists() else []
            num_connected = {line.get(metrics.ACTORS_CONNECTED, 0) for line in lines}
    trainer.join(60.0)

    assert not trainer.is_alive()
    assert max(num_connected) == 2


def test_seed_row_num_learners_are_threads_of_the_learner(tmp_path: Path) -> None:
    from impala_agent.seed_settings import replace_settings

    config = replace_settings(
        make_agent(num_learners=3, num_actors=1, batch_size=2).config,
        transport={"front_end": "in-process"},
        checkpoint={"tensorboard": False},
    )
    with RunningServer(tmp_path, config) as server:
        server.run_actor("CartPole-v1")
        server.wait_until(lambda status: status.get(metrics.UPDATES, 0) > 0)
        names = {thread.name for thread in threading.enumerate()}

    assert {"impala-learner-0", "impala-learner-1", "impala-learner-2"} <= names
    assert "impala-learner-3" not in names


def test_seed_row_num_storages_bound_what_is_stored(trained: Trained) -> None:
    assert make_agent(num_storages=60, batch_size=4).config.rollout.num_storage_slots == 15
    assert max(line[metrics.QUEUE_FILL] for line in trained.lines) <= 1.0


def test_seed_row_feature_dim_and_hidden_dim_are_widths_of_the_network() -> None:
    """Seen failing with hidden_sizes left at its default."""
    vectors = make_agent(feature_dim=24, hidden_dim=40).network
    images = make_agent(make_images, feature_dim=24, hidden_dim=40).network

    assert [m.out_features for m in vectors.modules() if isinstance(m, nn.Linear)][:2] == [24, 40]
    widths = [(m.in_features, m.out_features) for m in images.modules() if isinstance(m, nn.Linear)]
    assert widths[0][1] == 24
    assert widths[1] == (24, 40)


def test_seed_row_lr_and_eps_are_rmsprops_with_a_linear_schedule(trained: Trained) -> None:
    optimizer = trained.agent._frozen().learner._optimizer
    rates = [line[metrics.LEARNING_RATE] for line in trained.lines if line[metrics.UPDATES] > 0]

    assert type(optimizer) is torch.optim.RMSprop
    assert optimizer.param_groups[0]["eps"] == 0.01
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(4e-4 * 50 / STEPS, abs=4e-4 * 50 / STEPS)
    assert update_once(lr=0.02)["learning_rate"] == 0.02


def test_seed_row_use_lstm_carries_state_into_the_update() -> None:
    """Seen failing with init_actor_states ignored."""
    agents = [make_agent(use_lstm=True) for _ in range(2)]
    batch = make_batch(agents[0])
    batch = {name: value for name, value in batch.items() if "state" not in name}
    states = [tuple(torch.full((1, 5, 12), fill) for _ in range(2)) for fill in (0.0, 1.0)]

    fresh, carried = (
        agent.update(batch, state)["total_loss"]
        for agent, state in zip(agents, states, strict=True)
    )

    assert len(agents[0].network.agent_state_specs()) == 2
    assert fresh == make_agent(use_lstm=True).update(batch)["total_loss"]
    assert fresh != carried


def test_seed_row_ent_coef_and_baseline_coef_weigh_the_losses() -> None:
    """Seen failing with the two exchanged."""
    once = update_once(ent_coef=0.1, baseline_coef=0.5)
    more = update_once(ent_coef=0.3, baseline_coef=1.0)

    assert more["entropy_loss"] == pytest.approx(3 * once["entropy_loss"], rel=1e-4)
    assert more["baseline_loss"] == pytest.approx(2 * once["baseline_loss"], rel=1e-4)
    parts = once["pg_loss"] + once["baseline_loss"] + once["entropy_loss"]
    assert once["total_loss"] == pytest.approx(parts, rel=1e-5)


def test_seed_row_max_grad_norm_bounds_the_step() -> None:
    """RMSProp's first step is at most the gradient where eps is 1."""
    steps = []
    for max_grad_norm in (1e-3, 1e3):
        agent = make_agent(max_grad_norm=max_grad_norm, eps=1.0, lr=1.0)
        before = weights_of(agent)
        agent.update(make_batch(agent))
        after = weights_of(agent)
        steps.append(math.sqrt(sum(float(((after[n] - before[n]) ** 2).sum()) for n in before)))

    assert 0 < steps[0] <= 1.01e-3
    assert steps[1] > 100 * steps[0]


def test_seed_row_discount_is_that_of_value_targets() -> None:
    assert update_once(discount=0.0)["baseline_loss"] != update_once(discount=0.99)["baseline_loss"]


@pytest.mark.parametrize(
    "name",
    ["orthogonal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"],
)
def test_seed_row_network_init_method_and_init_fn_are_the_same_setting(name: str) -> None:
    by_method = weights_of(make_agent(network_init_method=name))

    assert are_equal(by_method, weights_of(make_agent(init_fn=name)))
    assert not are_equal(by_method, weights_of(make_agent()))
    with pytest.raises(ConfigError, match="init_fn is 'identity' but must be the same"):
        make_agent(network_init_method=name, init_fn="identity")
    with pytest.raises(ConfigError, match="network_init_method is 'nobody'"):
        make_agent(network_init_method="nobody")


@pytest.mark.parametrize(
    "loss",
    [
        {"clip_rho_threshold": 0.2, "clip_c_threshold": 0.2},
        {"clip_pg_rho_threshold": 0.2},
        {"clip_c_threshold": 0.1},
        {"vtrace_lambda": 0.1},
    ],
    ids=lambda loss: next(iter(loss)),
)
def test_seed_row_vtrace_clips_and_lambda_are_settings(loss: dict[str, float]) -> None:
    usual = update_once()["pg_loss"]

    assert update_once(config={"loss": loss})["pg_loss"] != usual


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


def test_seed_row_network_may_be_shipped_or_ones_own() -> None:
    shipped = make_agent(make_images, model="impala_resnet").network
    own = make_agent(model=OwnNetwork).network
    fed_back = make_agent(config={"model": {"use_previous_action_and_reward": True}}).network

    assert sum(isinstance(m, nn.Conv2d) for m in shipped.modules()) == 15
    assert any(isinstance(m, OwnNetwork) for m in own.modules())
    first = next(m for m in fed_back.modules() if isinstance(m, nn.Linear))
    assert first.in_features == 4 + 2 + 1


class OwnNetwork(nn.Module):
    """A whole network: forward(inputs, state) -> outputs."""

    def __init__(self, spec: Any, environment: Any) -> None:
        super().__init__()
        self.body = nn.Linear(4, environment.action.num_logits + 1)

    def forward(self, inputs: Any, state: Any) -> Any:
        from impala_common.models.contract import ModelOutputs

        outputs = self.body(inputs.observations["observation"])
        return ModelOutputs(outputs[..., :-1], outputs[..., -1], state)


class BrokenNetwork(OwnNetwork):
    """Its logits are one too many."""

    def forward(self, inputs: Any, state: Any) -> Any:
        outputs = self.body(inputs.observations["observation"])
        return super().forward(inputs, state)._replace(policy_logits=outputs)


def test_seed_row_network_of_wrong_shape_is_refused_before_training_with_the_shapes() -> None:
    with pytest.raises(Exception, match=r"policy_logits: expected \[2, 3, 2\], got \[2, 3, 3\]"):
        make_agent(model=BrokenNetwork).freeze()
