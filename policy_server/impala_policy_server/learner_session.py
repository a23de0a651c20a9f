"""LearnerSession: the policy server's side towards the learner, that of an ordinary actor.

Its own thread registers, fetches the first weights, and sends what comes into the `Outbox`, with
the actor's own client, sender and subscriber. When the learner or its session is lost it registers
again; unrolls of the old session are dropped, as an actor's are.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from impala_actor.acting.learner_client import LearnerClient, Session
from impala_actor.acting.unroll_sender import UnrollSender
from impala_actor.acting.weights_subscriber import WeightsSubscriber
from impala_common.codec.unrolls import pack_unrolls
from impala_common.errors import (
    CapacityError,
    ConfigError,
    ImpalaError,
    InvalidRequestError,
    ModelError,
    QueueClosedError,
    RunFinishedError,
    SpecMismatchError,
    StaleSessionError,
    UnsupportedSpaceError,
)
from impala_common.run.event_history import marks_of, open_history
from impala_common.spec.specs import EnvironmentSpec
from impala_policy_server.outbox import Load, Outbox
from impala_policy_server.slot_arrays import Array
from impala_policy_server.slot_unrolls import join_unrolls
from impala_rl.v1 import learner_pb2

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_OF_CLIENTS = (
    CapacityError,
    InvalidRequestError,
    ModelError,
    SpecMismatchError,
    UnsupportedSpaceError,
)
"""Errors of a registration that another client, or a later one, may not have."""


class OpenSession(NamedTuple):
    """A session that the learner has opened, with the first weights."""

    session: Session
    policy_version: int
    weights: Mapping[str, Array]


class LearnerSession:
    """Sessions with one learner address, one after another.

    Attributes:
      opened: result of the first registration: an OpenSession, or its ImpalaError.
      num_steps: agent steps sent.
      policy_lag: updates between the learner's newest known version and the oldest weights of the
        last message to it.
    """

    def __init__(
        self,
        client: LearnerClient,
        environment: EnvironmentSpec,
        num_slots: int,
        model: str,
        outbox: Outbox,
        on_reopened: Callable[[OpenSession], None],
        on_end: Callable[[ImpalaError], None],
    ) -> None:
        """Starts the thread.

        Args:
          client: calls to the learner; its `stop` ends the thread.
          environment: specification of the clients' environments.
          num_slots: number of slots to register with.
          model: the own network that this server was started with; "" for none.
          outbox: emptied here.
          on_reopened: called from the thread for each session after the first; returns once the
            outbox is empty and nothing of the old session can come into it any more.
          on_end: called from the thread with the error that ended it; not if the learner refused
            the first registration for what the client plays, or for lack of room.
        """
        self.opened: concurrent.futures.Future[OpenSession] = concurrent.futures.Future()
        self.num_steps = 0
        self.policy_lag = 0
        self._client = client
        self._environment = environment
        self._num_slots = num_slots
        self._model = model
        self._outbox = outbox
        self._on_reopened = on_reopened
        self._on_end = on_end
        self._subscriber: WeightsSubscriber | None = None
        self._sender: UnrollSender | None = None
        self._ended_verdicts: Counter[str] = Counter()  # of sessions that are over
        self._newest_version = 0
        self._history = open_history("actor", actor_id=client.actor_id, has_remote_slots=True)
        self._thread = threading.Thread(target=self._run, name="impala-policy-session")
        self._thread.start()

    @property
    def verdicts(self) -> Counter[str]:
        """Messages to the learner by verdict, of all sessions. From any thread."""
        sender = self._sender
        return self._ended_verdicts + Counter({} if sender is None else dict(sender.outcomes))

    def take_weights(self) -> tuple[int, dict[str, Array]] | None:
        """Returns (version, weights) if newer ones have arrived. From the event loop."""
        subscriber = self._subscriber
        return None if subscriber is None else subscriber.take_newest()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread, once the client's `stop` is set."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._client.stop.is_set():
                try:
                    self._keep_session()
                except StaleSessionError as error:
                    _LOG.warning("%s", error)
        except (RunFinishedError, QueueClosedError) as error:
            self._fail(error)
        except ImpalaError as error:
            _LOG.error("%s", error)
            self._fail(error)
        except Exception as error:
            _LOG.exception("the learner's session failed")
            self._fail(ImpalaError(f"the learner's session failed: {error}"))
        finally:
            self._history.add("end")
            self._history.close()

    def _fail(self, error: ImpalaError) -> None:
        is_first = not self.opened.done()
        if not (is_first and isinstance(error, _OF_CLIENTS)):
            self._on_end(error)
        if is_first:
            self.opened.set_exception(error)

    def _keep_session(self) -> None:
        session = self._client.register(self._environment, self._num_slots, self._model)
        if session.is_lockstep:
            raise ConfigError(
                "lockstep", True, "off", "a policy server plays at the speed of its clients"
            )
        self._history.add(
            "session",
            epoch=session.actor.session_epoch,
            index=session.actor_index,
            learner_run_id=session.learner_run_id,
        )
        subscriber = WeightsSubscriber(self._client, session)
        sender: UnrollSender | None = None
        try:
            opened = OpenSession(session, *subscriber.fetch())
            if self.opened.done():
                self._on_reopened(opened)
            else:
                self.opened.set_result(opened)
            self._subscriber = subscriber
            self._newest_version = opened.policy_version
            sender = UnrollSender(
                self._client,
                session,
                lambda version: self._on_version(version, subscriber),
                self._history,
                self._outbox.note_answered,
            )
            self._outbox.window = session.window
            self._sender = sender
            self._send_all(session, sender)
        finally:
            self._subscriber = None
            subscriber.close()
            if sender is not None:
                sender.close()
                self._sender = None
                self._ended_verdicts = self._ended_verdicts + Counter(sender.outcomes)

    def _on_version(self, version: int, subscriber: WeightsSubscriber) -> None:
        """Notes the learner's newest version; called at each verdict."""
        self._newest_version = max(self._newest_version, version)
        subscriber.notify(version)

    def _send_all(self, session: Session, sender: UnrollSender) -> None:
        sent_s = time.perf_counter()
        while True:
            if self._client.stop.is_set() and not self._outbox.wait(0.0):
                raise QueueClosedError("the policy server is stopping")
            sender.raise_failure()
            self._client.heartbeat.beat()
            if not self._outbox.wait(_POLL_S):
                continue
            blocked_s = sender.wait_for_room()
            load = self._outbox.take(session.max_unrolls)
            now_s = time.perf_counter()
            self._send(session, sender, load, now_s - sent_s, blocked_s)
            sent_s = now_s

    def _send(
        self, session: Session, sender: UnrollSender, load: Load, elapsed_s: float, blocked_s: float
    ) -> None:
        unrolls, version = join_unrolls(load.parts, session.unroll)
        request = learner_pb2.PushUnrollsRequest()
        message = pack_unrolls(unrolls, session.unroll, True, request.unrolls)
        message.policy_version = version
        self.policy_lag = max(0, self._newest_version - version)
        for episode in load.episodes:
            message.episodes.add(
                episode_return=episode.episode_return,
                step_count=episode.num_steps,
                environment_slot=episode.environment_slot,
            )
        message.times.inference_s = load.inference_s
        message.times.blocked_s = blocked_s
        message.times.environment_s = max(0.0, elapsed_s - load.inference_s - blocked_s)
        marks: list[str] = []
        if self._history.is_on:
            rows = {leaf.tensor.name: leaf.rows != "none" for leaf in session.unroll.leaves}
            marks = marks_of(unrolls.stacked(session.unroll), rows)
        sender.send(request, marks)
        self.num_steps += int((~unrolls.leaves["is_padding"]).sum())
