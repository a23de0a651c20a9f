"""The class IMPALA over real processes: its files, its arguments, its errors."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import pytest
import torch
from running_server import wait_for_threads
from seed_agents import are_equal, weights_of

from impala_agent.training import Training
from impala_common.errors import ConfigError, ImpalaError, RunInUseError
from impala_common.run import metrics
from impala_server import IMPALA

pytestmark = pytest.mark.timeout(180)

SMALL: dict[str, Any] = {
    "num_actors": 1,
    "envs_per_actor": 4,
    "num_steps": 8,
    "batch_size": 4,
    "num_storages": 8,
    "num_learners": 1,
    "feature_dim": 16,
    "hidden_dim": 16,
    "quiet": True,
}
"""Arguments of an agent that trains a thousand steps in two seconds."""


def make_agent(path: Path, env: object = "CartPole-v1", **arguments: Any) -> IMPALA:
    """Returns a small agent whose run is in `path`."""
    config = {"checkpoint": {"tensorboard": False}}
    return IMPALA(env, run_dir=path / "run", config=config, **(SMALL | arguments))


def process_state() -> dict[str, Any]:
    """Returns everything of this process that the class must leave as it is."""
    return {
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # type: ignore[index, union-attr]
        "random": random.getstate(),
        "threads of torch": torch.get_num_threads(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "logging": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "sys.path": list(sys.path),
    }


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fails the test that leaves processes, threads, descriptors or listening ports."""
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    children = set(psutil.Process().children(recursive=True))  # servers that other tests share
    yield
    assert set(psutil.Process().children(recursive=True)) - children == set()
    assert wait_for_threads(threads) == []
    deadline_s = time.monotonic() + 10
    while (left := open_descriptors() - descriptors) and time.monotonic() < deadline_s:
        # Channels that other tests closed may still be letting go of theirs, on gRPC's threads.
        threading.Event().wait(0.1)
    assert left == Counter()


def open_descriptors() -> Counter[str]:
    """Returns how many descriptors of each kind are open: files by name, sockets, pipes, memory.

    Those of gRPC's event loop do not count: it keeps them for the life of a process.
    """
    found: Counter[str] = Counter()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            target = os.readlink(f"/proc/self/fd/{entry}")
            if not target.startswith("anon_inode:"):
                found[target.partition("[")[0]] += 1
    return found


@pytest.mark.usefixtures("nothing_left")
def test_agent_that_trains_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    make_agent(tmp_path / "first").freeze()  # libraries set variables when they are imported
    # Streams that nobody would happen to leave like this by seeding.
    torch.rand(1), np.random.rand(), random.random()
    before = process_state()

    with make_agent(tmp_path) as agent:
        result = agent.train(500)
        agent.eval(2)
        agent.save(tmp_path / "saved")
        agent.load(tmp_path / "saved")

    assert result.reason == "finished"
    assert process_state() == before


@pytest.mark.usefixtures("nothing_left")
def test_agent_whose_actor_fails_raises_its_message_within_seconds(tmp_path: Path) -> None:
    class Fails(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            raise RuntimeError("the simulator is on fire")

    start_s = time.monotonic()
    with (
        make_agent(tmp_path, lambda: Fails(gymnasium.make("CartPole-v1"))) as agent,
        pytest.raises(ImpalaError, match="the simulator is on fire"),
    ):
        agent.train(10_000)

    assert time.monotonic() - start_s < 60


@pytest.mark.usefixtures("nothing_left")
def test_agent_closed_from_another_thread_ends_in_order(tmp_path: Path) -> None:
    agent = make_agent(tmp_path)
    timer = threading.Timer(0.0, lambda: (_wait_for_steps(agent), agent.close()))
    timer.start()

    result = agent.train(10_000_000)
    timer.join()

    assert result.reason == "stopped"
    assert agent.global_step == result.num_steps > 0


def _wait_for_steps(agent: IMPALA, timeout_s: float = 40.0) -> None:
    """Waits until the agent's learner has trained."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        training = agent._training
        if training is not None and (training.status.number(metrics.STEPS) or 0) > 0:
            return
        threading.Event().wait(0.05)
    raise AssertionError("the learner did not train in time")


def test_interrupt_while_the_trained_state_is_read_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: the agent kept the weights of before its training."""
    take_over = Training.take_over
    interrupts = [KeyboardInterrupt()]

    def interrupted(training: Training) -> Any:
        if interrupts:
            raise interrupts.pop()
        return take_over(training)

    monkeypatch.setattr(Training, "take_over", interrupted)
    with make_agent(tmp_path) as agent:
        with pytest.raises(KeyboardInterrupt):
            agent.train(300)
        assert agent.global_step >= 300


def test_training_that_is_refused_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    """Seen to fail: init_model_path was loaded before the other arguments were looked at."""
    with make_agent(tmp_path / "other") as other:
        saved = other.save(tmp_path / "saved")
    with make_agent(tmp_path, seed=7) as agent:
        before = {name: value.copy() for name, value in weights_of(agent).items()}
        with pytest.raises(ImpalaError):
            agent.train(300, init_model_path=saved, log_interval="often")  # type: ignore[arg-type]

        assert are_equal(weights_of(agent), before)


def test_agent_in_a_folder_that_holds_another_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "specs.json").write_text("{}")

    with pytest.raises(ConfigError, match=r"it holds a run; go on with it by load\(run_dir\)"):
        make_agent(tmp_path).train(100)


def test_agent_in_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    from impala_common.run.run_directory import RunDirectory

    with RunDirectory(tmp_path / "run").lock(), pytest.raises(RunInUseError):
        make_agent(tmp_path).train(100)


def test_agent_without_python_objects_trains_where_no_memory_can_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail before: on systems without memfd, which are not Linux, nothing was trained."""
    monkeypatch.delattr(os, "memfd_create")
    agent = make_agent(tmp_path)

    result = agent.train(num_train_steps=200)

    assert result.reason == "finished"
