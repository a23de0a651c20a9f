"""Each row of the seed's class, by the name it has there: what it promises, done.

One agent trains for the whole module; what needs no processes is tested on agents that were
never trained. The rows are those of the table in docs/migration.md.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import pytest
import torch
from gymnasium import spaces
from harness import RunningServer
from torch import nn

from impala_agent.results import TrainResult
from impala_common import metrics
from impala_common.checkpoints import Checkpoint, CheckpointStore
from impala_common.errors import (
    CheckpointError,
    ConfigError,
    IllegalTransitionError,
    SpecMismatchError,
)
from impala_common.inherited_objects import unpack_object
from impala_common.metrics import read_metrics
from impala_common.run_directory import RunDirectory
from impala_common.specs import UnrollSpec
from impala_common.testing.unrolls import make_unrolls
from impala_server import IMPALA

STEPS = 2000
SMALL: dict[str, Any] = {
    "num_actors": 2,
    "envs_per_actor": 2,
    "num_steps": 10,
    "batch_size": 4,
    "num_storages": 8,
    "num_learners": 2,
    "feature_dim": 16,
    "hidden_dim": 12,
    "quiet": True,
}
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


def make_scaled() -> gymnasium.Env[Any, Any]:
    """Returns CartPole with rewards of 10."""
    return gymnasium.wrappers.TransformReward(gymnasium.make("CartPole-v1"), lambda r: 10 * r)


def make_agent(env: object = "CartPole-v1", **arguments: Any) -> IMPALA:
    """Returns an agent that is not to be trained."""
    return IMPALA(env, **(SMALL | arguments))


def make_batch(agent: IMPALA, seed: int = 0, num_steps: int = 6, size: int = 5) -> dict[str, Any]:
    """Returns random unrolls of the agent's environment without ends, a batch of `size`."""
    learner = agent._frozen().learner
    spec = UnrollSpec(num_steps, learner.environment, learner.agent_state)
    batch: dict[str, Any] = dict(make_unrolls(spec, size, seed))
    for name in ("terminated", "truncated", "is_padding", "is_first"):
        batch[name] = np.zeros_like(batch[name])
    return batch


def update_once(batch_seed: int = 0, **arguments: Any) -> dict[str, Any]:
    """Returns the metrics of the first update of a new agent."""
    agent = make_agent(**arguments)
    return agent.update(make_batch(agent, batch_seed))


def weights_of(agent: IMPALA) -> dict[str, np.ndarray]:
    """Returns a copy of the network's tensors."""
    return {name: t.detach().cpu().numpy().copy() for name, t in agent.network.state_dict().items()}


def are_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two networks are the same, bit for bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


class Trained:
    """An agent after `train`, and what was seen of it."""

    def __init__(self, path: Path) -> None:
        self.run = RunDirectory(path / "run")
        self.cwd = os.getcwd()
        self.agent = IMPALA(
            "CartPole-v1",
            make_scaled,
            "my tag",
            7,
            run_dir=self.run.path,
            config={"checkpoint": {"keep_checkpoints": 100}},
            **SMALL,
        )
        self.initial_weights = weights_of(self.agent)
        self.result: TrainResult = self.agent.train(STEPS, log_interval=0.2, save_interval=500)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Returns the run's checkpoints, oldest first."""
        store = CheckpointStore(self.run.checkpoints_path)
        return [store.load(name) for name in store.names()]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Returns the run's metrics."""
        return read_metrics(self.run.metrics_path)


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

    assert logs == {"learner.log", "front-end.log", "actor-0.log", "actor-1.log"}
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


def test_seed_row_eval_env_is_where_eval_plays(trained: Trained) -> None:
    result = trained.agent.eval(4)

    assert result["episode_rewards"] == pytest.approx(10 * result["episode_lengths"])


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


def test_seed_row_num_actors_take_part(trained: Trained) -> None:
    assert max(line[metrics.ACTORS_CONNECTED] for line in trained.lines) == 2


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
    # 2 slots of 4 unrolls: unrolls trained on lag by what fits in them and on the way, no more.
    assert max(line.get(metrics.POLICY_LAG_MAX) or 0 for line in trained.lines) <= 8


def test_seed_row_feature_dim_and_hidden_dim_are_widths_of_the_network() -> None:
    """Seen failing with hidden_sizes left at its default."""
    vectors = make_agent(feature_dim=24, hidden_dim=40).network
    images = make_agent(make_images, feature_dim=24, hidden_dim=40).network

    assert [m.out_features for m in vectors.modules() if isinstance(m, nn.Linear)][:2] == [24, 40]
    widths = [(m.in_features, m.out_features) for m in images.modules() if isinstance(m, nn.Linear)]
    assert widths[0][1] == 24
    assert widths[1] == (24, 40)


def make_images() -> gymnasium.Env[Any, Any]:
    """Returns an environment of small images."""
    return SpacesEnv(spaces.Box(0, 255, (16, 16, 3), np.uint8), spaces.Discrete(3))


class SpacesEnv(gymnasium.Env[Any, Any]):
    """Samples observations of any space; ends never."""

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, False, False, {}


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


def test_seed_row_freeze_builds_all_and_fixes_the_structure() -> None:
    agent = make_agent()
    agent.set(optimizer="adam")

    agent.freeze()

    assert isinstance(agent._frozen().learner._optimizer, torch.optim.Adam)
    with pytest.raises(IllegalTransitionError, match="the structure is frozen"):
        agent.set(optimizer="rmsprop")


def test_seed_row_act_runs_an_actor_in_this_process_against_the_learner(tmp_path: Path) -> None:
    """The run has no actor but that of `act`."""
    agent = make_agent(num_actors=0, run_dir=tmp_path / "run")
    results: list[TrainResult] = []
    trainer = threading.Thread(target=lambda: results.append(agent.train(300)))

    trainer.start()
    num_steps = agent.act(actor_idx=7)
    trainer.join(30)

    assert results[0].reason == "finished"
    assert num_steps >= results[0].num_steps >= 300


def test_seed_row_update_makes_one_step_and_returns_the_seeds_metrics() -> None:
    agent = make_agent()
    batch = make_batch(agent)
    batch["terminated"][3, 1] = True
    batch["rewards"][:4, 1] = [1.0, 2.0, 3.0, 4.0]
    before = weights_of(agent)

    result = agent.update({name: torch.from_numpy(array) for name, array in batch.items()})

    names = {"episode_returns", "episode_steps", "total_loss", "pg_loss", "baseline_loss"}
    assert names | {"entropy_loss", "grad_norm", "kl", "learning_rate"} <= result.keys()
    assert result["episode_returns"] == (10.0,)
    assert result["episode_steps"] == (4,)
    assert not are_equal(before, weights_of(agent))
    assert agent.global_step == 6 * 5


def test_seed_row_update_raises_the_probability_of_what_was_rewarded() -> None:
    """Seen failing with rewards negated, and with rewards one row late."""
    agent = make_agent(lr=0.01, discount=0.0, ent_coef=0.0)
    batch = make_batch(agent, num_steps=20, size=20)
    batch["behaviour_policy_logits"][...] = 0.0
    batch["rewards"] = (batch["actions"] == 1).astype(np.float32)

    for _ in range(50):
        agent.update(batch)

    observations = torch.from_numpy(batch["observation"][:-1]).flatten(0, 1)
    from impala_common.models.contract import ModelInputs

    rows = torch.zeros(1, 400)
    inputs = ModelInputs({"observation": observations[None]}, rows.bool(), rows.long(), rows)
    probabilities = agent.network(inputs, ()).policy_logits.softmax(-1)[..., 1]
    assert probabilities.mean() > 0.8


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"rewards": np.zeros((6, 4))},
            r"batch\['rewards'\]: expected float32 \[6, 5\], got float64 \[6, 4\]",
        ),
        ({"reward": 1}, r"batch\['reward'\]: expected one of"),
        ({"actions": None}, r"batch\['actions'\]: expected int64 \[T, B\], got"),
    ],
)
def test_seed_row_update_of_a_bad_batch_names_what_is_wrong(
    change: dict[str, Any], text: str
) -> None:
    agent = make_agent()

    with pytest.raises(SpecMismatchError, match=text):
        agent.update(make_batch(agent) | change)


def test_seed_row_train_writes_checkpoints_and_leaves_the_agent_trained(trained: Trained) -> None:
    """Seen failing with the agent's state left as it was before training."""
    checkpoints = trained.checkpoints
    gaps = np.diff([checkpoint.step for checkpoint in checkpoints])

    assert trained.result.reason == "finished"
    assert trained.agent.global_step == trained.result.num_steps >= STEPS
    assert are_equal(checkpoints[-1].tensors["weights"], weights_of(trained.agent))
    assert not are_equal(trained.initial_weights, weights_of(trained.agent))
    assert len(checkpoints) >= 3
    assert min(gaps[:-1]) >= 500


def test_seed_row_train_replaces_an_actor_that_dies(tmp_path: Path) -> None:
    agent = make_agent(num_actors=1, run_dir=tmp_path / "run")
    killed: list[psutil.Process] = []

    def kill_the_actor() -> None:
        for _ in range(600):
            status = agent._training.status if agent._training else {}
            if status.get(metrics.STEPS, 0) > 0:
                break
            threading.Event().wait(0.05)
        for child in psutil.Process().children():
            if "impala_actor" in child.cmdline():
                child.kill()
                killed.append(child)

    killer = threading.Thread(target=kill_the_actor)
    killer.start()
    result = agent.train(6000)
    killer.join()

    assert len(killed) == 1
    assert result.reason == "finished"


def test_seed_row_train_from_init_model_path_begins_with_its_weights_only(trained: Trained) -> None:
    agent = make_agent(run_dir=trained.run.path.with_name("begun"), num_actors=1)

    agent.train(100, init_model_path=trained.result.checkpoint)

    store = CheckpointStore(agent.run_dir / "checkpoints")
    first = store.load(store.names()[0])
    assert first.step == 0
    assert are_equal(first.tensors["weights"], trained.checkpoints[-1].tensors["weights"])
    assert not first.tensors["optimizer"]


def test_seed_row_eval_is_greedy_and_has_a_confidence_interval(trained: Trained) -> None:
    result = trained.agent.eval(num_eval_episodes=6)

    assert result["is_greedy"]
    assert result["num_episodes"] == 6
    assert result["confidence_low"] <= result["return_mean"] <= result["confidence_high"]


def test_seed_row_save_and_load_give_the_same_agent(trained: Trained, tmp_path: Path) -> None:
    """Seen failing without the optimizer's state, and without the random stream."""
    saved = trained.agent.save(tmp_path / "saved")
    other = make_agent(seed=99)
    batch = make_batch(other)

    other.load(saved)

    assert are_equal(weights_of(other), weights_of(trained.agent))
    again = other.save(tmp_path / "again")
    assert {p.name for p in saved.iterdir()} == {p.name for p in again.iterdir()}
    for path in saved.glob("*.safetensors"):
        assert path.read_bytes() == (again / path.name).read_bytes()
    states = [json.loads((p / "manifest.json").read_text())["state"] for p in (saved, again)]
    assert states[0]["counters"] == states[1]["counters"]
    third = make_agent()
    third.load(again)
    assert other.update(batch) == third.update(batch)
    assert are_equal(weights_of(other), weights_of(third))


def test_seed_row_save_writes_nothing_that_runs_code(trained: Trained, tmp_path: Path) -> None:
    files = {path.name for path in trained.agent.save(tmp_path / "saved").iterdir()}

    assert files == {
        "manifest.json",
        "weights.safetensors",
        "optimizer.safetensors",
        "rng.safetensors",
    }


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"env": "Acrobot-v1"},
            r"is of other spaces: observation\.shape: expected \(6,\), got \(4,\)",
        ),
        ({"hidden_dim": 20}, r"of another network: hidden_dim is 12 there and 20 here"),
        ({"use_lstm": True}, r"recurrence is 'none' there and 'lstm' here"),
    ],
)
def test_seed_row_load_of_another_agents_checkpoint_says_what_differs(
    trained: Trained, arguments: dict[str, Any], text: str
) -> None:
    agent = make_agent(**arguments)
    before = weights_of(agent)

    with pytest.raises(CheckpointError, match=text):
        agent.load(trained.run.path)

    assert are_equal(before, weights_of(agent))


def test_seed_row_mode_switches_the_network() -> None:
    agent = make_agent()

    agent.mode(training=False)

    assert not agent.training
    assert not agent.network.training
    agent.mode()
    assert agent.network.training


@pytest.mark.parametrize(
    "encoder",
    [nn.Linear(4, 9), lambda spec, environment: nn.Sequential(nn.Linear(4, 9), nn.ReLU())],
    ids=["module", "maker"],
)
def test_seed_row_set_exchanges_the_encoder(encoder: object) -> None:
    agent = make_agent()

    agent.set(encoder=encoder)

    linear = [m for m in agent.network.modules() if isinstance(m, nn.Linear)]
    assert (linear[0].in_features, linear[0].out_features) == (4, 9)
    assert linear[1].in_features == 9
    assert agent.update(make_batch(agent))["is_applied"]


def test_seed_row_set_of_what_cannot_be_exchanged_says_why() -> None:
    with pytest.raises(ConfigError, match=r"storage is .*num_storages and batch_size size it"):
        make_agent().set(storage=object())
    with pytest.raises(TypeError, match="curiosity"):
        make_agent().set(curiosity=1)  # type: ignore[call-arg]


def test_seed_row_metrics_are_written_losses_and_returns(trained: Trained) -> None:
    last = trained.lines[-1]

    assert {
        metrics.RETURN_MEAN,
        metrics.LOSS_TOTAL,
        metrics.LOSS_PG,
        metrics.ENTROPY,
    } <= last.keys()
    assert last[metrics.EPISODES] == trained.result.num_episodes > 0
    assert len(trained.lines) >= 2
    assert list(trained.run.tensorboard_path.glob("*tfevents*")) or list(
        trained.run.tensorboard_path.iterdir()
    )
