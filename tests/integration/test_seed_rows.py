"""Each argument of the seed's class, under its name there, has its effect.

Here: all of them together, and those about processes and the run; the others are in
test_seed_environments.py, test_seed_networks.py and test_seed_updates.py, methods in
test_seed_methods.py. The rows are those of docs/migration.md. One agent trains for all of
these files; what needs no processes is tested on agents that were never trained.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from pathlib import Path

import pytest
from running_server import RunningServer
from seed_agents import SMALL, STEPS, Trained, make_agent

from impala_common.run import metrics
from impala_common.run.metrics import read_metrics
from impala_common.run.run_directory import RunDirectory
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


def test_seed_row_tag_names_the_folder_and_leaves_the_working_directory(trained: Trained) -> None:
    assert "my-tag" in IMPALA("CartPole-v1", tag="my tag").run_dir.name
    assert os.getcwd() == trained.cwd


def test_seed_row_seed_decides_evaluation(trained: Trained) -> None:
    assert trained.agent.eval(4)["returns"] == trained.agent.eval(4)["returns"]


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
