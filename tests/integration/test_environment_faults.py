"""Environments that raise, return non-finite numbers, or hang: training goes on and reports it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from running_server import TINY, RunningServer, make_config

from impala_common.config import TrainConfig
from impala_common.run import metrics
from impala_server.local.actors import LocalActors

pytestmark = pytest.mark.timeout(120)
TESTS = Path(__file__).resolve().parents[1] / "kit"


def make_bandit_config(total_steps: int) -> TrainConfig:
    return make_config(
        job={"total_steps": total_steps},
        environment={"envs_per_actor": 4},
        rollout={"unroll_length": 8, "batch_size": 32, "num_storages": 64},
        optimizer={"learning_rate": 2e-2},
    )


def test_bandit_that_raises_in_one_step_of_a_hundred_is_solved(tmp_path: Path) -> None:
    """About one unroll in four is dropped; the others stay aligned (docs/faults.md, 31).

    Seen to fail with exceptions that reach the actor's loop: the actor died of the first.
    """
    with RunningServer(tmp_path, make_bandit_config(20_000)) as server:
        for _ in range(2):
            server.run_actor("faulty_environments:Raising-v0")
        status = server.wait_finished(40.0)
        assert server.evaluate(TINY + "ContextualBandit-v0", 400).return_mean >= 0.95

    assert status[metrics.ENVIRONMENT_FAILURES] >= 100
    assert status[metrics.UNROLLS_INVALID] == 0


def test_numbers_that_are_not_finite_stop_at_the_actor(tmp_path: Path) -> None:
    """The actor drops non-finite unrolls (docs/faults.md, 33). Learner: test_push_stream.py.

    Seen to fail without the check in the actor's loop: the learner answers INVALID, and counts.
    """
    with RunningServer(tmp_path, make_bandit_config(6_000)) as server:
        server.run_actor("faulty_environments:NonFinite-v0")
        status = server.wait_finished(40.0)

    assert status[metrics.ENVIRONMENT_FAILURES] >= 1
    assert status[metrics.UNROLLS_INVALID] == 0
    assert status[metrics.SKIPPED_UPDATES] == 0


def test_actor_whose_environment_hangs_ends_with_75_and_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a hang a new process sends unrolls (docs/faults.md, 32).

    The watchdog says so after 1 to 1.3 s; what follows is the start of a process. That without a
    watchdog nothing ends it is seen in test_rebuilt_environment.py.
    """
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    marker = tmp_path / "hung"
    config = make_config(
        environment={
            "env": "faulty_environments:Hanging-v0",
            "env_backend": "sync",
            "env_kwargs": json.dumps({"marker": str(marker)}),
            "env_timeout_s": 1.0,
            "envs_per_actor": 2,
        },
        rollout={"batch_size": 2, "num_storages": 8},
    )
    with RunningServer(tmp_path / "run", config) as server:
        actors = LocalActors(config, server.run, server.address)
        actors.start()
        try:
            server.wait_until(lambda _status: marker.exists())
            hung_s = time.monotonic()
            updates = server.supervisor.status.metrics.get(metrics.UPDATES, 0)

            def is_training(status: dict[str, float]) -> bool:
                actors.check()
                return status.get(metrics.UPDATES, 0) > updates + 40

            server.wait_until(is_training, 50.0)
            assert time.monotonic() - hung_s < 40.0
        finally:
            actors.stop()

    log = (server.run.log_path / "actor-0.log").read_text()
    assert "has not returned for 1 s" in log
    assert "faulty_environments.py" in log  # the stack says where
    assert "Traceback" not in log
