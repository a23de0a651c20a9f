"""The actor's main loop: steps environment slots, builds unrolls, swaps weights.

One process, N environment slots, one batched policy. `Actor.run` works on the
calling thread until the run has finished, the learner stayed away too long, or
`stop` is set; when the learner or its session is lost it registers again.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from typing import Any

import numpy as np

from impala_actor.acting.actor_config import ActorConfig
from impala_actor.acting.learner_client import LearnerClient, Session, default_actor_id
from impala_actor.acting.session_model import make_session_model
from impala_actor.acting.slotwise_builder import SlotwiseUnrollBuilder
from impala_actor.acting.stop_signals import reclaim_signals
from impala_actor.acting.unroll_builder import UnrollBuilder
from impala_actor.acting.unroll_sender import UnrollSender
from impala_actor.acting.weights_subscriber import WeightsSubscriber
from impala_actor.environments.adapter import EnvironmentAdapter, StepResult
from impala_actor.environments.episode_statistics import EpisodeTracker
from impala_actor.environments.factory import make_environment
from impala_actor.environments.rebuilt import (
    RebuiltEnvironment,
    UnrollAbandonedError,
    all_finite,
)
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_common.codec.field_bounds import MAX_FAILURES_PER_MESSAGE
from impala_common.codec.unrolls import Unrolls, pack_unrolls
from impala_common.errors import (
    LearnerUnavailableError,
    QueueClosedError,
    RunFinishedError,
    StaleSessionError,
)
from impala_common.policy.inference.selection import make_inference
from impala_common.policy.policy import Policy, PolicyStep
from impala_common.process import failpoints
from impala_common.process.devices import resolve_device
from impala_common.process.heartbeat import Heartbeat
from impala_common.run.event_history import marks_of, open_history
from impala_rl.v1 import learner_pb2, unroll_pb2

_LOG = logging.getLogger(__name__)


class Actor:
    """One actor, from its first call to the learner to the end of its stream.

    Attributes:
      config: its settings; the learner decides all others.
      actor_id: its name; made up if the settings have none.
      stop: ends the actor at the next unroll when set.
      outcomes: messages by verdict.
      num_steps: agent steps sent.
    """

    def __init__(self, config: ActorConfig, stop: threading.Event | None = None) -> None:
        """Prepares; `run` works. Setting `stop` ends it at the next unroll."""
        self.config = config
        self.actor_id = config.actor_id or default_actor_id()
        self.stop = stop or threading.Event()
        self._client = LearnerClient(
            config.server, self.actor_id, config.connect_timeout_s, self.stop, config.security
        )
        self._client.heartbeat = Heartbeat(config.heartbeat_file)
        self.history = open_history("actor", actor_id=self.actor_id)
        self.outcomes: dict[str, int] = {}
        self.num_steps = 0

    def abandon(self) -> None:
        """Breaks the connection, so that no call delays the stop. From any thread."""
        self._client.close()

    def run(self) -> None:
        """Acts until the run has finished or `stop` is set.

        Raises:
          ImpalaError: environment or own network cannot be made or do not fit the run, the
            environment fails too often, or the learner cannot be reached within connect_timeout_s.
        """
        watchdog = EnvironmentWatchdog(self.config.env_timeout_s)
        try:
            environment = self._make_environment(watchdog)
            try:
                while not self.stop.is_set():
                    try:
                        session = self._client.register(
                            environment.spec, environment.num_slots, self.config.model
                        )
                        _SessionLoop(self, self._client, session, environment).run()
                    except StaleSessionError as error:
                        _LOG.warning("%s", error)
            finally:
                environment.close()
        except RunFinishedError as error:
            _LOG.info("%s", error)
        except QueueClosedError:
            pass  # asked to stop
        except LearnerUnavailableError:
            if not self.stop.is_set():  # else: asked to stop while waiting for the learner
                raise
        finally:
            watchdog.close()
            self._client.close()
            self.history.add("end")
            self.history.close()

    def _make_environment(self, watchdog: EnvironmentWatchdog) -> RebuiltEnvironment:
        defaults = self._client.get_defaults()
        # Settings that name code are this actor's own; the learner never sends them.
        config = dataclasses.replace(
            defaults.environment,
            env=self.config.env,
            env_backend=self.config.env_backend,
            env_kwargs=self.config.env_kwargs,
            env_wrapper=self.config.env_wrapper,
        )
        num_slots = self.config.num_envs or defaults.num_slots

        def make() -> EnvironmentAdapter:
            try:
                return make_environment(self.config.env, num_slots, config, self.config.env_threads)
            finally:
                reclaim_signals(self.stop)

        return RebuiltEnvironment(
            make, self.stop, watchdog, self.config.max_env_failures, self.config.env
        )


class _SessionLoop:
    """One session, from Register to its end."""

    def __init__(
        self, actor: Actor, client: LearnerClient, session: Session, environment: RebuiltEnvironment
    ) -> None:
        self._actor = actor
        self._client = client
        self._session = session
        self._environment = environment
        num_slots, device = environment.num_slots, actor.config.device
        model = make_session_model(session)
        action = environment.spec.action
        inference = make_inference(
            # A repeatable run must not depend on a measurement.
            "eager" if session.is_lockstep else actor.config.inference_backend,
            model,
            session.unroll.environment,
            num_slots,
            session.unroll.unroll_length,
            "cpu" if device == "auto" else str(resolve_device(device)),
        )
        self._policy = Policy(model, action, num_slots, session.seed, inference)
        builder = SlotwiseUnrollBuilder if environment.resets_at_once else UnrollBuilder
        self._builder = builder(session.unroll, num_slots)
        self._episodes = EpisodeTracker(num_slots)
        self._times = unroll_pb2.ActorTimes()
        self._summaries: list[unroll_pb2.EpisodeSummary] = []
        self._version = self._unrolls_version = -1  # of the weights; the oldest in the unrolls
        self._num_failures_told = environment.num_failures
        self._observations = environment.start(session.seed % (1 << 31))
        self._is_first = np.ones(num_slots, np.bool_)
        self._subscriber = WeightsSubscriber(client, session)
        self._history = actor.history
        self._history.add(
            "session",
            epoch=session.actor.session_epoch,
            index=session.actor_index,
            learner_run_id=session.learner_run_id,
        )
        self._sender = UnrollSender(client, session, self._subscriber.notify, self._history)

    def run(self) -> None:
        """Acts until RunFinishedError, StaleSessionError or stop ends it."""
        try:
            self._swap_weights(*self._subscriber.fetch())
            while not self._actor.stop.is_set():
                try:
                    self._play_unrolls()
                except UnrollAbandonedError:
                    self._start_anew()
                    continue
                self._send_unrolls()
                self._times.blocked_s = self._sender.wait_for_room()
                self._refresh_weights()
        finally:
            self._subscriber.close()
            self._sender.close()
            self._actor.outcomes = self._sender.outcomes

    def _play_unrolls(self) -> None:
        """Takes T steps in every slot; raises QueueClosedError if the actor is to stop."""
        self._unrolls_version = self._version
        policy, environment, builder = self._policy, self._environment, self._builder
        builder.begin(
            self._observations,
            self._is_first,
            policy.agent_state,
            policy.previous_action,
            policy.previous_reward,
        )
        inference_s = environment_s = 0.0
        start_s = time.perf_counter()
        while not builder.is_complete:
            if self._actor.stop.is_set():
                raise QueueClosedError("the actor is stopping")
            decision: PolicyStep = policy.act(self._observations, self._is_first)
            acted_s = time.perf_counter()
            result: StepResult = environment.step(decision.actions)
            stepped_s = time.perf_counter()
            builder.add(decision, result)
            policy.observe(result.rewards, result.is_first)
            self._note_episodes(result)
            self._observations, self._is_first = result.observations, result.is_first
            if self._session.refreshes_weights_each_step and not builder.is_complete:
                self._take_newest_weights()
            failpoints.hit("actor.mid_unroll")
            inference_s += acted_s - start_s
            environment_s += stepped_s - acted_s
            start_s = stepped_s
        self._client.heartbeat.beat()
        reclaim_signals(self._actor.stop)
        if not _is_finite(builder.unrolls):
            environment.abandon("an observation, a reward or a decision is not finite")
            raise UnrollAbandonedError
        environment.note_progress()
        self._times.inference_s, self._times.environment_s = inference_s, environment_s

    def _start_anew(self) -> None:
        """Starts new episodes in every slot; those of the abandoned unroll are not counted."""
        self._summaries = []
        num_slots = self._environment.num_slots
        self._observations = self._environment.start(self._session.seed % (1 << 31))
        self._is_first = np.ones(num_slots, np.bool_)
        self._policy.observe(np.zeros(num_slots, np.float32), self._is_first)
        self._episodes = EpisodeTracker(num_slots)
        self._builder.forget()

    def _send_unrolls(self) -> None:
        unrolls = self._builder.unrolls
        request = learner_pb2.PushUnrollsRequest()
        message = pack_unrolls(
            unrolls, self._session.unroll, self._actor.config.compress, request.unrolls
        )
        message.policy_version = self._unrolls_version
        message.episodes.extend(self._summaries)
        message.times.CopyFrom(self._times)
        self._summaries = []
        num_failures = self._environment.num_failures - self._num_failures_told
        message.environment_failure_count = min(num_failures, MAX_FAILURES_PER_MESSAGE)
        self._num_failures_told += message.environment_failure_count
        self._sender.send(request, self._marks_of(unrolls))
        self._actor.num_steps += int((~unrolls.leaves["is_padding"]).sum())

    def _marks_of(self, unrolls: Unrolls) -> list[str]:
        """Returns the marks of unrolls for the event history; none if it is off."""
        if not self._history.is_on:
            return []
        spec = self._session.unroll
        rows = {leaf.tensor.name: leaf.rows != "none" for leaf in spec.leaves}
        return marks_of(unrolls.stacked(spec), rows)

    def _refresh_weights(self) -> None:
        if self._session.is_lockstep:
            newer = self._subscriber.fetch(self._version + 1, self._sender.raise_failure)
            self._swap_weights(*newer)
            return
        self._take_newest_weights()

    def _take_newest_weights(self) -> None:
        newest = self._subscriber.take_newest()
        if newest is not None:
            self._swap_weights(*newest)

    def _swap_weights(self, version: int, weights: dict[str, np.ndarray[Any, Any]]) -> None:
        self._policy.load(weights)
        self._version = version
        self._history.add("swap", version=version, learner_run_id=self._session.learner_run_id)

    def _note_episodes(self, result: StepResult) -> None:
        for record in self._episodes.update(result):
            self._summaries.append(
                unroll_pb2.EpisodeSummary(
                    episode_return=record.episode_return,
                    step_count=record.num_steps,
                    environment_slot=record.environment_slot,
                )
            )


def _is_finite(unrolls: Unrolls) -> bool:
    frames = {} if unrolls.frames is None else {"frames": unrolls.frames.frames}
    return all_finite(unrolls.leaves | frames)
