"""The evaluator's main loop: plays each candidate with frozen weights and reports its result.

One process, environments and seeds of its own. `Evaluator.run` works on the calling thread
until the run has finished, the learner could not be reached in time, or `stop` is set. The learner
never waits for it. When the learner is lost, it drops the candidate that it plays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from impala_actor.acting.learner_client import default_actor_id
from impala_actor.acting.stop_signals import reclaim_signals
from impala_actor.environments.adapter import EnvironmentAdapter, Observations
from impala_actor.environments.factory import make_environment
from impala_actor.environments.rebuilt import RebuiltEnvironment
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_actor.evaluation.candidate_subscriber import CandidateSubscriber
from impala_actor.evaluation.evaluation_client import EvaluationClient, Task
from impala_actor.evaluation.evaluator_config import EvaluatorConfig
from impala_actor.evaluation.policy_evaluation import Evaluation, evaluate
from impala_actor.video.evaluation_videos import EvaluationVideos
from impala_common.codec.weights import unpack_snapshot
from impala_common.errors import (
    CapacityError,
    InvalidRequestError,
    LearnerUnavailableError,
    NotFoundError,
    QueueClosedError,
    RunFinishedError,
    StaleSessionError,
)
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model
from impala_common.models.weights import weights_specs
from impala_common.policy.policy import Policy, PolicyStep
from impala_common.process.heartbeat import Heartbeat
from impala_common.run.evaluation_results import EvaluationResult
from impala_common.spec.specs import EnvironmentSpec, validate_same_model

_LOG = logging.getLogger(__name__)
_DEFAULT_NUM_SLOTS = 10
_FIELDS = tuple(field.name for field in dataclasses.fields(EvaluationResult))


class Evaluator:
    """One evaluator, from its first call to the learner to the end of the run."""

    def __init__(self, config: EvaluatorConfig, stop: threading.Event | None = None) -> None:
        """Prepares; `run` works. Setting `stop` ends it at the next step."""
        self._config = config
        self._stop = stop or threading.Event()
        self._client = EvaluationClient(
            config.server,
            config.evaluator_id or default_actor_id(),
            config.connect_timeout_s,
            self._stop,
            config.security,
        )
        self._client.heartbeat = Heartbeat(config.heartbeat_file)
        self._videos: EvaluationVideos | None = None
        self.num_evaluations = 0

    def abandon(self) -> None:
        """Breaks the connection, so that no call delays the stop. From any thread."""
        self._client.close()

    def run(self) -> None:
        """Evaluates until the run has finished or `stop` is set.

        Raises:
          ImpalaError: the environment cannot be made or does not fit the run, or the learner
            cannot be reached within connect_timeout_s.
        """
        watchdog = EnvironmentWatchdog(self._config.env_timeout_s)
        try:
            with contextlib.closing(self._make_environment(watchdog)) as environment:
                model = self._config.model
                subscriber = CandidateSubscriber(self._client, environment.spec, model)
                try:
                    self._play_all(subscriber, environment)
                finally:
                    subscriber.close()
        except RunFinishedError as error:
            _LOG.info("%s", error)
        except LearnerUnavailableError:
            if not self._stop.is_set():  # else: asked to stop while waiting for the learner
                raise
        finally:
            watchdog.close()
            self._client.close()

    def _make_environment(self, watchdog: EnvironmentWatchdog) -> RebuiltEnvironment:
        config = dataclasses.replace(
            self._client.get_defaults().environment,
            env=self._config.env,
            env_backend=self._config.env_backend,
            env_kwargs=self._config.env_kwargs,  # names code, so the learner never sends it
            env_wrapper=self._config.env_wrapper,
        ).with_whole_games()
        if self._config.record_dir:
            self._videos = EvaluationVideos(
                self._config.record_dir,
                self._config.record_every,
                self._config.env,
                config,
                watchdog,
            )
        num_slots = self._config.num_envs or _DEFAULT_NUM_SLOTS

        def make() -> EnvironmentAdapter:
            try:
                return make_environment(self._config.env, num_slots, config)
            finally:
                reclaim_signals(self._stop)

        return RebuiltEnvironment(make, self._stop, watchdog, env=self._config.env)

    def _play_all(self, subscriber: CandidateSubscriber, environment: RebuiltEnvironment) -> None:
        played = ""
        while (task := subscriber.take(but=played)) is not None:
            played = task.candidate
            try:
                self._play(task, subscriber, environment)
            except (NotFoundError, StaleSessionError, CapacityError, QueueClosedError) as error:
                _LOG.info("%s is given up: %s", task.candidate, error)
                played = ""  # it is offered again if the place was lost and found again meanwhile
            except LearnerUnavailableError as error:
                _LOG.info("%s is given up: %s", task.candidate, error)
                played = ""  # the same learner life may return and offer it again
            except InvalidRequestError as error:  # for example returns that are not finite
                _LOG.warning(
                    "the evaluation of %s is no result, and the learner gives it up: %s",
                    task.candidate, error,
                )  # fmt: skip
                self._report_failure(task, str(error), subscriber)

    def _report_failure(self, task: Task, text: str, subscriber: CandidateSubscriber) -> None:
        """Tells the learner, so that it offers the next candidate."""
        try:
            self._client.report_failure(task, text, lambda: subscriber.wants(task))
        except (NotFoundError, StaleSessionError, LearnerUnavailableError) as error:
            _LOG.info("%s was given up already: %s", task.candidate, error)

    def _play(
        self, task: Task, subscriber: CandidateSubscriber, environment: RebuiltEnvironment
    ) -> None:
        start_s = time.monotonic()
        # The learner's answer must never decide which code is imported.
        validate_same_model(task.model.name, self._config.model)
        spec = environment.spec.with_roles_of(task.observation_leaves)
        model = make_model(task.model, spec, seed=0)

        def is_wanted() -> bool:
            return subscriber.wants(task)

        weights = unpack_snapshot(
            self._client.get_candidate_weights(task, weights_specs(model), is_wanted)
        )

        def check() -> None:
            self._client.heartbeat.beat()
            reclaim_signals(self._stop)
            if not is_wanted():
                raise QueueClosedError("its result is wanted no more")

        sampled, greedy = (
            _evaluate(model, weights, environment, task, is_greedy, check)
            for is_greedy in (False, True)
        )
        duration_s = time.monotonic() - start_s
        is_best = self._client.report(
            task, _sum_up(sampled), _sum_up(greedy), duration_s, is_wanted
        )
        self.num_evaluations += 1
        _LOG.info(
            "step %d: return %g drawn, %g greedy over %d episodes, %.1f s%s",
            task.trained_steps,
            sampled.return_mean,
            greedy.return_mean,
            sampled.num_episodes,
            duration_s,
            ": the best so far" if is_best else "",
        )
        if self._videos is not None and self._videos.is_next_filmed():
            self._film(self._videos, task, model, weights, environment.spec)

    def _film(
        self,
        videos: EvaluationVideos,
        task: Task,
        model: AgentModel,
        weights: Mapping[str, np.ndarray[Any, Any]],
        spec: EnvironmentSpec,
    ) -> None:
        """Films one episode; the end of the run does not end it, only `stop` does."""

        def check() -> None:
            self._client.heartbeat.beat()
            if self._stop.is_set():
                raise QueueClosedError("its video is wanted no more")

        policy = Policy(model, spec.action, 1, task.seed)
        policy.load(weights)
        videos.film(_CheckedPolicy(policy, check), task.trained_steps, task.seed)


class _CheckedPolicy:
    """A policy that checks at each step whether to go on."""

    def __init__(self, policy: Policy, check: Callable[[], None]) -> None:
        self._policy = policy
        self._check = check

    def act(
        self,
        observations: Observations,
        is_first: np.ndarray[Any, Any],
        is_greedy: bool = False,
    ) -> PolicyStep:
        self._check()
        return self._policy.act(observations, is_first, is_greedy=is_greedy)

    def observe(self, rewards: np.ndarray[Any, Any], is_first_next: np.ndarray[Any, Any]) -> None:
        self._policy.observe(rewards, is_first_next)


def _evaluate(
    model: AgentModel,
    weights: Mapping[str, np.ndarray[Any, Any]],
    environment: RebuiltEnvironment,
    task: Task,
    is_greedy: bool,
    check: Callable[[], None],
) -> Evaluation:
    """Plays one mode with a new policy, which has no state of the mode before."""
    policy = Policy(model, environment.spec.action, environment.num_slots, task.seed)
    policy.load(weights)
    return evaluate(
        _CheckedPolicy(policy, check),
        environment,
        task.num_episodes,
        task.seed,
        is_greedy=is_greedy,
    )


def _sum_up(evaluation: Evaluation) -> EvaluationResult:
    return EvaluationResult(**{name: getattr(evaluation, name) for name in _FIELDS})
