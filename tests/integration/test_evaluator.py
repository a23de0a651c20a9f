"""The evaluator over real servers: it plays the right weights correctly, and reconnects."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty_environments
import numpy as np
import pytest
import torch
from running_server import TINY, RunningActor, RunningServer, make_config

from impala_actor.environments.factory import make_environment
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_actor.evaluation import evaluation_client, evaluator_loop
from impala_actor.evaluation.candidate_subscriber import CandidateSubscriber
from impala_actor.evaluation.evaluation_client import EvaluationClient
from impala_actor.evaluation.evaluator_config import EvaluatorConfig
from impala_actor.evaluation.run_evaluation import evaluate_run
from impala_common.config import ModelConfig
from impala_common.errors import LearnerUnavailableError, SpecMismatchError
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.frozen_run import load_weights, read_specs
from impala_common.policy.policy import Policy
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore

BANDIT = TINY + "ContextualBandit-v0"
CUE = TINY + "RepeatCue-v0"
INTERVAL = 1000
LSTM = {"recurrence": "lstm"}


def evaluated_config(**sections: dict[str, Any]) -> Any:
    return make_config(
        evaluation={"eval_interval_steps": INTERVAL, "eval_interval_episodes": 20}, **sections
    )


def lines_of(server: RunningServer) -> list[dict[str, Any]]:
    return [line for line in server.metrics() if metrics.EVALUATION_RETURN_MEAN in line]


def has_line(server: RunningServer, num_lines: int = 1) -> Any:
    path = server.run.metrics_path
    return lambda unused: path.exists() and len(lines_of(server)) >= num_lines


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e30, -1e30])
def test_return_that_is_no_number_is_told_and_the_next_candidate_is_played(
    tmp_path: Path,
    value: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before: the evaluator kept the candidate and got no other for half an hour."""
    sum_up, results = evaluator_loop._sum_up, iter(range(2**31))

    def sum_up_wrongly(evaluation: Any) -> Any:
        result = sum_up(evaluation)
        is_wrong = next(results) == 0
        changes = {"return_mean": value, "return_max": value} if is_wrong else {}
        return dataclasses.replace(result, **changes)

    monkeypatch.setattr(evaluator_loop, "_sum_up", sum_up_wrongly)
    with RunningServer(tmp_path, evaluated_config()) as server:
        server.run_actor(BANDIT)
        server.run_evaluator(BANDIT)
        server.wait_until(has_line(server, 2))
        server.stop()

    (told,) = [r.getMessage() for r in caplog.records if "is no result" in r.getMessage()]
    assert "return_mean" in told
    assert all(abs(line[metrics.EVALUATION_RETURN_MEAN]) <= 1.0 for line in lines_of(server))


def test_evaluator_watches_its_environment_for_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: an evaluator waited for ever, and the run had no evaluations any more."""
    said: list[str] = []
    has_said = threading.Event()

    def note(text: str) -> None:
        said.append(text)
        has_said.set()

    watch = functools.partial(EnvironmentWatchdog, on_hang=note)
    monkeypatch.setattr(evaluator_loop, "EnvironmentWatchdog", watch)
    kwargs = json.dumps({"marker": str(tmp_path / "hung")})
    with RunningServer(tmp_path, evaluated_config()) as server:
        server.run_actor("faulty_environments:Drawn-v0")
        server.run_evaluator("faulty_environments:Hanging-v0", env_kwargs=kwargs, env_timeout_s=0.5)
        assert has_said.wait(40.0)
        faulty_environments.released.set()
        server.stop()

    assert "has not returned for 0.5 s" in said[0]


def test_evaluations_come_at_the_interval_and_are_what_impala_eval_finds(tmp_path: Path) -> None:
    """The best checkpoint, played again with the same seed, does the same to the last bit.

    Training goes on while candidates are played, and a bandit's policy changes with every
    update. Planted: the evaluator plays the newest weights in place of the candidate's.
    """
    with RunningServer(tmp_path, evaluated_config()) as server:
        server.run_actor(BANDIT)
        server.run_evaluator(BANDIT)
        server.wait_until(has_line(server, 3))
        server.stop()
        lines = lines_of(server)

    steps = [line[metrics.STEPS] for line in lines]
    assert steps == sorted(set(steps))
    assert all(step % INTERVAL < 64 for step in steps), steps  # an update has 64 rows at most
    for line in lines:
        assert line[metrics.EVALUATION_LOW] <= line[metrics.EVALUATION_RETURN_MEAN]
        assert line[metrics.EVALUATION_RETURN_MEAN] <= line[metrics.EVALUATION_HIGH]
        assert line[metrics.EVALUATION_EPISODES] == line[metrics.GREEDY_EPISODES] == 20
        assert line[metrics.EVALUATION_LENGTH_MEAN] == 1.0
    best = CheckpointStore(server.run.checkpoints_path).load("best")
    line = next(line for line in lines if line[metrics.STEPS] == best.step)
    assert line[metrics.EVALUATION_RETURN_MEAN] == max(
        line[metrics.EVALUATION_RETURN_MEAN] for line in lines
    )
    for is_greedy, name in (
        (False, metrics.EVALUATION_RETURN_MEAN),
        (True, metrics.GREEDY_RETURN_MEAN),
    ):
        again = evaluate_run(
            tmp_path,
            num_episodes=20,
            num_slots=10,
            seed=best.state["evaluation"]["seed"],
            is_greedy=is_greedy,
            env=BANDIT,
            checkpoint_name="best",
        )
        assert again.evaluation.return_mean == line[name]
    assert not server.run.candidates_path.exists()


def test_recurrent_candidate_is_played_as_episode_by_episode(tmp_path: Path) -> None:
    """Against a loop of the test's own that runs the network over each episode from its start.

    The run starts from large random weights, with which the likeliest action hangs on what was
    seen before, and hardly changes them. Planted: the policy's state zeroed at every step; resets
    that the policy is not told of.
    """
    model = LSTM | {"hidden_sizes": (16,), "hidden_dim": 16}
    weights = _make_weights_with_memory(ModelConfig(model="mlp", **model))
    start = CheckpointStore(tmp_path / "start").save(0, {"weights": weights}, {}, "large")
    config = evaluated_config(
        job={"init_model_path": str(start)},
        model=model,
        optimizer={"learning_rate": 1e-9},
    )
    with RunningServer(tmp_path / "run", config) as server:
        server.run_actor(CUE)
        server.run_evaluator(CUE)
        server.wait_until(has_line(server))
        server.stop()
        lines = lines_of(server)

    best = CheckpointStore(server.run.checkpoints_path).load("best")
    line = next(line for line in lines if line[metrics.STEPS] == best.step)
    expected = _play_greedily_by_episode(server, best)
    assert line[metrics.GREEDY_RETURN_MEAN] == pytest.approx(expected, abs=1e-9)
    assert expected > _play_greedily_by_episode(server, best, has_memory=False) + 1.0


def _make_weights_with_memory(config: ModelConfig) -> dict[str, np.ndarray]:
    environment = make_environment(CUE, 1)
    environment.close()
    model = make_model(resolve_model_spec(config, environment.spec), environment.spec, seed=3)
    return {name: 4.0 * value.numpy() for name, value in model.state_dict().items()}


def _play_greedily_by_episode(
    server: RunningServer, checkpoint: Any, has_memory: bool = True
) -> float:
    """Returns the mean return of two episodes in each of ten slots, without Policy."""
    environment_spec, model_spec = read_specs(server.run.specs_path)
    model = make_model(model_spec, environment_spec, seed=0).eval()
    load_weights(model, checkpoint)
    environment = make_environment(CUE, 10)
    try:
        observations = environment.reset(checkpoint.state["evaluation"]["seed"])
        histories: list[list[np.ndarray]] = [[] for _ in range(10)]
        returns, running = [[] for _ in range(10)], np.zeros(10)
        is_first = np.ones(10, np.bool_)
        while min(map(len, returns)) < 2:
            actions = np.zeros(10, np.int64)
            for slot in range(10):
                if is_first[slot] or not has_memory:
                    histories[slot] = []
                histories[slot].append(observations["observation"][slot].copy())
                actions[slot] = _likeliest(model, np.stack(histories[slot]))
            step = environment.step(actions)
            for slot in range(10):
                running[slot] += step.rewards[slot]
                if step.is_first[slot]:
                    returns[slot].append(running[slot])
                    running[slot] = 0.0
            observations, is_first = step.observations, step.is_first
    finally:
        environment.close()
    return float(np.mean([episode for slot in returns for episode in slot[:2]]))


def _likeliest(model: Any, history: np.ndarray) -> int:
    """Returns the likeliest action after a history of one episode."""
    from impala_common.models.contract import ModelInputs

    length = len(history)
    is_first = torch.zeros(length, 1, dtype=torch.bool)
    is_first[0] = True
    inputs = ModelInputs(
        {"observation": torch.from_numpy(history).unsqueeze(1)},
        is_first,
        torch.zeros(length, 1, dtype=torch.int64),
        torch.zeros(length, 1),
    )
    with torch.inference_mode():
        logits = model(inputs, model.initial_state(1)).policy_logits
    return int(logits[-1, 0].argmax())


def test_evaluator_survives_a_restart_of_the_learner(tmp_path: Path) -> None:
    """It goes on with the new life's candidates; the best value is that of both lives."""
    config = evaluated_config()
    with RunningServer(tmp_path, config) as server, contextlib.ExitStack() as stack:
        settings = {"env": BANDIT, "evaluator_id": "judge", "env_backend": "sync"}
        evaluator = RunningActor(EvaluatorConfig(server=server.address, **settings))
        stack.callback(evaluator.stop)
        server.run_actor(BANDIT)
        server.wait_until(has_line(server))
        server.let_threads_stay()  # the evaluator's
        server.stop()
        stop_evaluator = stack.pop_all()
        num_lines = len(lines_of(server))
    transport = dataclasses.replace(config.transport, port=int(server.address.rpartition(":")[2]))
    config = dataclasses.replace(config, transport=transport)

    with stop_evaluator, RunningServer(tmp_path, config) as server:
        server.run_actor(BANDIT)
        server.wait_until(has_line(server, num_lines + 2))
        server.stop()

    assert evaluator.error is None
    values = [line[metrics.EVALUATION_BEST] for line in lines_of(server)]
    assert values == sorted(values)


def test_evaluator_ends_with_the_run(tmp_path: Path) -> None:
    config = evaluated_config(job={"total_steps": 4 * INTERVAL})
    with RunningServer(tmp_path, config) as server:
        evaluator = server.run_evaluator(BANDIT)
        server.run_actor(BANDIT)
        server.wait_finished()  # joins the evaluator, too

    assert evaluator.error is None


def test_evaluator_of_another_environment_names_the_difference(tmp_path: Path) -> None:
    with RunningServer(tmp_path, evaluated_config()) as server:
        server.run_actor(BANDIT)
        settings = {"env": CUE, "evaluator_id": "judge", "env_backend": "sync"}
        evaluator = RunningActor(EvaluatorConfig(server=server.address, **settings))
        evaluator.join()

    assert isinstance(evaluator.error, SpecMismatchError)
    assert "observation" in str(evaluator.error)


def test_evaluator_without_a_learner_gives_up_in_time() -> None:
    evaluator = RunningActor(
        EvaluatorConfig(
            server="127.0.0.1:9", env=BANDIT, evaluator_id="judge", connect_timeout_s=0.2
        )
    )
    evaluator.join()

    assert isinstance(evaluator.error, LearnerUnavailableError)


class LearnerLostBeforeWeights:
    """Holds an evaluator between a candidate and its weights until the learner is gone.

    Attributes:
      has_task: set when a candidate was taken.
      is_gone: set by the test when the learner is no more.
      asks_again: set when the evaluator then waits for candidates once more.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_task, self.is_gone, self.asks_again = (threading.Event() for _ in range(3))
        get_weights, take = EvaluationClient.get_candidate_weights, CandidateSubscriber.take

        def get_late(client: Any, task: Any, weights: Any, is_wanted: Any) -> bytes:
            self.has_task.set()
            assert self.is_gone.wait(20.0)
            return get_weights(client, task, weights, is_wanted)

        def take_and_tell(subscriber: Any, but: str = "") -> Any:
            if self.is_gone.is_set():
                assert not but  # the same candidate may be offered again
                self.asks_again.set()
            return take(subscriber, but)

        monkeypatch.setattr(EvaluationClient, "get_candidate_weights", get_late)
        monkeypatch.setattr(CandidateSubscriber, "take", take_and_tell)


@contextlib.contextmanager
def patient_evaluator(server: RunningServer) -> Iterator[RunningActor]:
    """An evaluator that waits for the learner for ever and may outlive it."""
    settings: dict[str, Any] = {"evaluator_id": "judge", "env_backend": "sync"}
    evaluator = RunningActor(EvaluatorConfig(server=server.address, env=BANDIT, **settings))
    try:
        yield evaluator
    finally:
        evaluator.stop()


def test_evaluator_that_loses_the_learner_before_the_weights_asks_for_candidates_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: calls about a candidate without a limit of their own (waits without end)."""
    monkeypatch.setattr(evaluation_client, "PATIENCE_S", 0.2)
    lost = LearnerLostBeforeWeights(monkeypatch)
    with contextlib.ExitStack() as stack:
        with RunningServer(tmp_path, evaluated_config()) as server:
            evaluator = stack.enter_context(patient_evaluator(server))
            server.run_actor(BANDIT)
            assert lost.has_task.wait(20.0)
            server.let_threads_stay()  # the evaluator's
        lost.is_gone.set()

        assert lost.asks_again.wait(10.0)
        assert evaluator.thread.is_alive()

    assert evaluator.error is None


def test_evaluator_that_has_heard_of_the_end_does_not_wait_for_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: `is_wanted` left out (it leaves after PATIENCE_S)."""
    lost = LearnerLostBeforeWeights(monkeypatch)
    config = make_config(
        job={"total_steps": 2 * INTERVAL},
        evaluation={"eval_interval_steps": INTERVAL, "eval_last_wait_s": 0.0},
    )
    with contextlib.ExitStack() as stack:
        with RunningServer(tmp_path, config) as server:
            evaluator = stack.enter_context(patient_evaluator(server))
            server.run_actor(BANDIT)
            assert lost.has_task.wait(20.0)
            server.wait_finished()
            server.let_threads_stay()  # the evaluator's
        lost.is_gone.set()
        evaluator.join(10.0)

    assert evaluator.error is None
    assert lost.asks_again.is_set()


def test_evaluator_when_stopped_in_an_episode_leaves_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An episode that never ends is left at the next step. Planted: no look between steps."""
    acting: list[RunningActor] = []
    act = Policy.act

    def act_and_stop(self: Policy, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_greedy") is not None:  # the evaluator's call
            acting[0]._stop.set()
        return act(self, *args, **kwargs)

    monkeypatch.setattr(Policy, "act", act_and_stop)
    with RunningServer(tmp_path, evaluated_config()) as server:
        acting.append(server.run_evaluator(CUE))
        server.run_actor(CUE)
        acting[0].join()
        assert not has_line(server)(None)
