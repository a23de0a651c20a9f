"""Each method of the seed's class, under its name there, does what it promises."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from seed_agents import STEPS, Trained, are_equal, make_agent, make_batch, weights_of
from torch import nn

from impala_actor.eval_cli import EvalArguments
from impala_agent.results import TrainResult
from impala_common.errors import (
    CheckpointError,
    ConfigError,
    IllegalTransitionError,
    SpecMismatchError,
)
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore

pytestmark = pytest.mark.timeout(180)


def test_seed_row_freeze_builds_all_and_fixes_the_structure() -> None:
    agent = make_agent()
    agent.set(optimizer="adam")

    agent.freeze()

    assert isinstance(agent._frozen().state.optimizer, torch.optim.Adam)
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


@pytest.mark.extended
def test_seed_row_train_replaces_an_actor_that_dies(tmp_path: Path) -> None:
    agent = make_agent(num_actors=1, run_dir=tmp_path / "run")
    killed: list[psutil.Process] = []

    def kill_the_actor() -> None:
        for _ in range(600):
            training = agent._training
            if training is not None and (training.status.number(metrics.STEPS) or 0) > 0:
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


@pytest.mark.parametrize("options", [{}, {"greedy": False}, {"greedy": True}])
def test_seed_row_eval_draws_actions_as_impala_eval_does_unless_told_otherwise(
    trained: Trained, options: dict[str, bool]
) -> None:
    """Seen to fail: the class was greedy and the command was not."""
    command = {field.name: field.default for field in dataclasses.fields(EvalArguments)}

    result = trained.agent.eval(num_eval_episodes=6, **options)

    assert result["is_greedy"] == options.get("greedy", command["greedy"])
    assert result["num_episodes"] == 6
    assert result["confidence_low"] <= result["return_mean"] <= result["confidence_high"]


def test_seed_row_save_and_load_give_the_same_agent(trained: Trained, tmp_path: Path) -> None:
    saved = trained.agent.save(tmp_path / "saved")
    other = make_agent(seed=99)
    batch = make_batch(other)

    other.load(saved)

    exported = [agent._frozen().export()[0] for agent in (trained.agent, other)]
    assert exported[0].keys() == exported[1].keys() == {"weights", "optimizer", "rng"}
    assert all(are_equal(exported[0][group], exported[1][group]) for group in exported[0])
    assert exported[0]["optimizer"]
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


@pytest.mark.parametrize("argument", ["encoder", "policy", "model"])
def test_seed_row_set_of_a_name_that_is_none_names_the_argument(argument: str) -> None:
    """Seen to fail for encoder and policy with the setting named in place of the argument."""
    agent = make_agent()

    with pytest.raises(ConfigError, match=rf"^{argument} is 'resnet' but must be one of auto"):
        agent.set(**{argument: "resnet"})

    assert agent.config.model.model == "auto"


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
    } <= set().union(*trained.lines)  # a last line without an update has no losses
    assert last[metrics.EPISODES] == trained.result.num_episodes > 0
    assert list(trained.run.tensorboard_path.glob("*tfevents*")) or list(
        trained.run.tensorboard_path.iterdir()
    )
