"""RunningServer: a whole learner server inside the test's process, with real gRPC.

The learner controller and the gRPC front end run as threads, so that starting costs
milliseconds and tests may look inside; everything between actors and learner still
goes through a socket on 127.0.0.1. Leaving the context ends all of it, in order, and
fails the test if a thread is left over.

    config = make_config(job={"total_steps": 4000}, loss={"discount": 0.9})
    with RunningServer(tmp_path, config) as server:
        server.run_actor("CartPole-v1")
        server.wait_finished()
        weights = server.weights()

Waiting is on events and pipes with a deadline, never for a while.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from impala_actor.acting.actor_config import ActorConfig
from impala_actor.acting.actor_loop import Actor
from impala_actor.evaluation.evaluator_config import EvaluatorConfig
from impala_actor.evaluation.evaluator_loop import Evaluator
from impala_actor.evaluation.policy_evaluation import Evaluation
from impala_actor.evaluation.run_evaluation import evaluate_run
from impala_common.config import TrainConfig
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model
from impala_common.policy.frozen_run import load_weights, read_specs
from impala_common.run.checkpoints import Checkpoint, CheckpointStore
from impala_common.run.metrics import read_metrics
from impala_common.run.run_directory import RunDirectory
from impala_server.messages import LearnerStatus
from impala_server.supervisor import Supervisor

Status = dict[str, Any]
"""The learner's status as tests read it: metrics by name beside the fields of LearnerStatus."""

TINY = "impala_common.testing.environments:"
"""Prefix of the ids of the tiny environments: TINY + "Counting-v0"."""

_POLL_S = 0.1
_PATIENCE_S = 60.0
"""Seconds that actors try to reach the server: longer than an ordered stop may take, so that no
actor gives up while a busy disk delays the last checkpoint."""
_THREADS_END_S = 10.0

_DEFAULTS: dict[str, dict[str, Any]] = {
    "job": {"num_actors": 1, "device": "cpu", "total_steps": 1_000_000, "seed": 1},
    "environment": {"envs_per_actor": 8},
    "model": {"model": "mlp", "hidden_sizes": (16,), "hidden_dim": 16},
    "rollout": {"unroll_length": 8, "batch_size": 8, "num_storages": 16, "num_learners": 1},
    "optimizer": {"optimizer": "adam", "learning_rate": 1e-3, "eps": 1e-5},
    "transport": {"front_end": "in-process", "port": 0},
    "checkpoint": {"tensorboard": False, "checkpoint_interval_s": 3600.0},
}


def make_config(**sections: dict[str, Any]) -> TrainConfig:
    """Returns settings for a small run on 127.0.0.1, any port, in this process.

    Args:
      **sections: by name of a TrainConfig section, the settings to change in it.
    """
    config = TrainConfig()
    changed = {}
    for field in dataclasses.fields(TrainConfig):
        settings = _DEFAULTS.get(field.name, {}) | sections.pop(field.name, {})
        changed[field.name] = dataclasses.replace(getattr(config, field.name), **settings)
    assert not sections, f"no such sections: {sorted(sections)}"
    return TrainConfig(**changed)


class RunningActor:
    """One actor, or evaluator, on a thread of its own.

    Attributes:
      actor: the actor.
      thread: where it runs.
      error: what made it fail, once it has.
    """

    def __init__(self, config: ActorConfig | EvaluatorConfig) -> None:
        self._stop = threading.Event()
        if isinstance(config, EvaluatorConfig):
            name = config.evaluator_id
            self.actor: Any = Evaluator(config, self._stop)
        else:
            name, self.actor = config.actor_id, Actor(config, self._stop)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"test-actor-{name}")
        self.thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Asks the actor to end and waits for it."""
        self._stop.set()
        self.join(timeout_s)

    def join(self, timeout_s: float = 10.0) -> None:
        """Waits until the actor has ended by itself."""
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), f"{self.thread.name} did not end in {timeout_s:g} s"

    def _run(self) -> None:
        try:
            self.actor.run()
        except BaseException as error:
            self.error = error


class RunningServer:
    """A learner server and its actors; see the module. Used by the test's thread only.

    Attributes:
      config: the settings it runs with.
      run: its run directory; stays when the server is gone.
      supervisor: the product's supervisor.
      address: HOST:PORT, once entered.
    """

    def __init__(self, path: Path, config: TrainConfig | None = None) -> None:
        """Prepares a server in folder `path`, which resumes if a run is there already."""
        self.config = config or make_config()
        self.run = RunDirectory(path)
        self.supervisor = Supervisor(self.config, self.run)
        self.address = ""
        self._actors: list[RunningActor] = []
        self._threads_before = set(threading.enumerate())

    def __enter__(self) -> RunningServer:
        """Starts learner and front end and waits until the port is open."""
        self._threads_before = set(threading.enumerate())
        self._lock = self.run.lock()
        try:
            self.supervisor.start()
            self.address = self.supervisor.wait_until_bound(10.0)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Ends actors, learner and front end; asserts that nothing is left and nothing failed."""
        self._close()
        left = wait_for_threads(self._threads_before)
        if error is None:
            self._raise_actor_errors()
            assert not left, f"threads left over: {left}"
        elif left:
            error.add_note(f"and threads were left over: {left}")

    def run_actor(self, env: str, actor_id: str = "", **settings: Any) -> RunningActor:
        """Starts an actor on a thread.

        Args:
          env: environment id.
          actor_id: its name; default: actor-0, actor-1 ...
          **settings: further fields of ActorConfig.
        """
        settings = {"env_backend": "sync", "connect_timeout_s": _PATIENCE_S} | settings
        name = actor_id or f"actor-{len(self._actors)}"
        config = ActorConfig(server=self.address, env=env, actor_id=name, **settings)
        self._actors.append(RunningActor(config))
        return self._actors[-1]

    def let_threads_stay(self) -> None:
        """Says that the threads there are now may outlive this server."""
        self._threads_before |= set(threading.enumerate())

    def run_evaluator(
        self, env: str, evaluator_id: str = "evaluator", **settings: Any
    ) -> RunningActor:
        """Starts an evaluator on a thread; further settings are fields of EvaluatorConfig."""
        settings = {"env_backend": "sync", "connect_timeout_s": _PATIENCE_S} | settings
        config = EvaluatorConfig(
            server=self.address, env=env, evaluator_id=evaluator_id, **settings
        )
        self._actors.append(RunningActor(config))
        return self._actors[-1]

    def wait_until(self, is_so: Callable[[Status], bool], timeout_s: float = 30.0) -> Status:
        """Polls until the learner's status is such that `is_so`, and returns it.

        The status is the newest metrics by name (impala_common.run.metrics) and "state".
        """
        deadline_s = time.monotonic() + timeout_s
        while not is_so(table_of(self.supervisor.status)):
            self._raise_actor_errors()
            assert time.monotonic() < deadline_s, (
                f"not within {timeout_s:g} s; status: {self.supervisor.status}"
            )
            ended = self.supervisor.poll(_POLL_S) is None
            assert not ended or is_so(table_of(self.supervisor.status)), (
                f"the learner ended before; status: {self.supervisor.status}"
            )
        return table_of(self.supervisor.status)

    def wait_finished(self, timeout_s: float = 30.0) -> Status:
        """Waits until the run has reached total_steps and its actors have left.

        Returns the last status; the last checkpoint is written by then.
        """
        status = self.wait_until(lambda status: status["state"] == "STOPPED", timeout_s)
        assert status["reason"] == "finished"
        for actor in self._actors:
            actor.join()
        self._raise_actor_errors()
        return status

    def stop(self, timeout_s: float = 30.0) -> Status:
        """Asks the learner to stop, waits, and returns the last status."""
        self.supervisor.request_stop()
        return self.wait_until(lambda status: status["state"] == "STOPPED", timeout_s)

    def checkpoint(self) -> Checkpoint:
        """Returns the newest checkpoint."""
        return CheckpointStore(self.run.checkpoints_path).load_newest()

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the weights of the newest checkpoint."""
        return self.checkpoint().tensors["weights"]

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl."""
        return read_metrics(self.run.metrics_path)

    def model(self) -> AgentModel:
        """Returns the network with the weights of the newest checkpoint."""
        environment_spec, model_spec = read_specs(self.run.specs_path)
        model = make_model(model_spec, environment_spec, seed=0)
        load_weights(model, self.checkpoint())
        return model.eval()

    def evaluate(
        self, env: str, num_episodes: int, num_slots: int = 10, seed: int = 1000
    ) -> Evaluation:
        """Judges the newest checkpoint with frozen weights, drawing actions."""
        return evaluate_run(
            self.run.path, num_episodes=num_episodes, num_slots=num_slots, seed=seed, env=env
        ).evaluation

    def _raise_actor_errors(self) -> None:
        for actor in self._actors:
            if actor.error is not None:
                raise AssertionError(f"{actor.thread.name} failed") from actor.error

    def _close(self) -> None:
        try:
            for actor in self._actors:
                actor._stop.set()
            self.supervisor.close()
            for actor in self._actors:
                actor.thread.join(_THREADS_END_S)
        finally:
            self._lock.close()


def table_of(status: LearnerStatus) -> Status:
    """Returns metrics by name, and those fields of the status that say something."""
    fields = {field.name: getattr(status, field.name) for field in dataclasses.fields(status)}
    metrics = fields.pop("metrics")
    return {**metrics, **{name: value for name, value in fields.items() if value not in ("", None)}}


def wait_for_threads(before: set[threading.Thread]) -> list[str]:
    """Returns the names of threads that were not there before and do not end in time.

    The poller of grpc.aio does not count: all servers of a process share it, and the library
    ends it whenever the last object that used it is collected as garbage. Nor do threads of gRPC's
    own that have called Python, which asks for a certificate so: Python cannot wait for them.
    """
    deadline_s = time.monotonic() + _THREADS_END_S
    left = []
    for thread in set(threading.enumerate()) - before:
        if "_poll_wrapper" in thread.name or isinstance(thread, threading._DummyThread):
            continue
        # One that is being started is listed, too, and cannot be joined yet.
        is_started = thread._started.wait(max(0.0, deadline_s - time.monotonic()))  # type: ignore[attr-defined]
        if is_started:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        if not is_started or thread.is_alive():
            left.append(thread.name)
    return left
