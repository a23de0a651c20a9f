"""Dispatcher: clients in, batches of decisions, answers out.

Owns the table of clients and, through its source, the policy engine; runs on the event loop. A
batch closes when every live slot of the connected clients waits for its action, or when the first
of them has waited as long as `BatchWait` says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from impala_common.errors import (
    ImpalaError,
    LearnerUnavailableError,
    RunFinishedError,
    StaleSessionError,
)
from impala_common.spec.specs import EnvironmentSpec
from impala_policy_server.action_encoder import ActionEncoder
from impala_policy_server.answers import Answers
from impala_policy_server.arrivals import Arrival, Arrivals
from impala_policy_server.batch_wait import BatchWait
from impala_policy_server.clients import Client, ClientStream, ClientTable
from impala_policy_server.observation_decoder import Message, ObservationDecoder
from impala_policy_server.policy_engine import PolicyEngine
from impala_policy_server.policy_source import PolicySource
from impala_policy_server.serving_figures import ServingFigures
from impala_rl.v1 import learner_pb2, policy_pb2

_LOG = logging.getLogger(__name__)
_RATE_S = 1.0
_MAX_OLDER_LIVES = 16


class Dispatcher:
    """All clients of one policy.

    Attributes:
      clients: the table of clients.
      figures: what is measured of batches.
      slot_timeout_s: silence after which a slot is given up.
      ended: set when no client is served any more; `failure` and `drain_reason` say why.
      why: the same in words.
    """

    def __init__(
        self,
        source: PolicySource,
        *,
        max_clients: int,
        max_batch_wait_s: float,
        slot_timeout_s: float,
    ) -> None:
        """Serves the policy of `source`; made on the event loop."""
        self.clients = ClientTable(max_clients)
        self.figures = ServingFigures()
        self.slot_timeout_s = slot_timeout_s
        self.ended = asyncio.Event()
        self.failure: ImpalaError | None = None
        self.why = ""
        self.drain_reason = learner_pb2.DRAIN_REASON_STOPPING
        self.engine: PolicyEngine | None = None
        self._source = source
        self._wait = BatchWait(max_batch_wait_s)
        self._decoder: ObservationDecoder | None = None
        self._answers: Answers | None = None
        self._arrivals = Arrivals(self._take)
        self._timer: asyncio.TimerHandle | None = None
        self._is_overdue = False
        self._waits_since_s: float | None = None
        source.attach(self._decide_if_due, self.end)

    async def join(
        self,
        stream: ClientStream,
        hello: policy_pb2.PlayHello,
        environment: EnvironmentSpec,
        peer: str,
    ) -> Client:
        """Returns the client that said hello, with its slots; older streams of it end.

        Raises:
          CapacityError: no room for it.
          StaleSessionError: a newer life of it is there.
          SpecMismatchError: it plays another environment.
          LearnerUnavailableError: there is no policy yet, or none any more.
          RunFinishedError: there is none any more, as the run has finished.
        """
        try:
            engine = await self._source.open(environment, hello.slot_count)
        finally:
            self._require_serving()  # what ended the server is no error of the client
        if self.engine is None:
            self.engine = engine
            self._decoder = ObservationDecoder(engine.environment)
            encoder = ActionEncoder(engine.environment.action)
            self._answers = Answers(self.clients, engine.table, encoder)
        before = self.clients.find(hello.client_id)
        client = None if before is None else self._succeed(before, hello)
        if client is None:
            client = self._add(engine, hello)
            client.older_lives = _lives_before(before, hello)
        client.stream, client.peer, client.heard_s = stream, peer, time.monotonic()
        client.wants_logits = hello.wants_logits
        engine.table.is_connected[client.places] = True
        return client

    def leave(self, client: Client, stream: ClientStream, *, is_goodbye: bool) -> None:
        """Notes the end of a stream; after a goodbye the client's slots are closed."""
        if client.stream is not stream:
            return  # replaced
        self._arrivals.flush()
        client.stream, client.left_s = None, time.monotonic()
        assert self.engine is not None
        self.engine.table.is_connected[client.places] = False
        if is_goodbye:
            self._remove(client)
        self._decide_if_due()

    def take(
        self, client: Client, stream: ClientStream, message: policy_pb2.SlotObservations
    ) -> None:
        """Takes observations of a client at the loop's next turn; answers follow.

        The stream fails with InvalidRequestError if they break the contract, and with
        StaleSessionError if it is no more the client's: its slots may be others' by now.
        """
        self._arrivals.add(Arrival(client, stream, message))

    def end(self, error: ImpalaError | None) -> None:
        """Serves no client any more: all are told to stop.

        Args:
          error: why; RunFinishedError: clients may end, too. None: asked to stop.
        """
        if self.ended.is_set():
            return
        if isinstance(error, RunFinishedError):
            self.drain_reason = learner_pb2.DRAIN_REASON_FINISHED
        self.failure = error
        self.why = self.why or str(error)
        self.ended.set()

    def drain(self, why: str) -> None:
        """Ends the service because somebody asked for it, and logs who."""
        if not self.ended.is_set():
            _LOG.warning("%s: %d are told to stop", why, self.clients.num_connected)
            self.why = why
        self.end(None)

    def close_all(self) -> None:
        """Closes the slots of all clients; what is complete of their episodes goes out."""
        for client in self.clients:
            self._remove(client)

    async def sweep(self) -> None:
        """Gives up silent slots and absent clients, until cancelled."""
        while True:
            await asyncio.sleep(min(max(self.slot_timeout_s / 8, 0.01), _RATE_S))
            if self.engine is None:
                continue
            self.clients.measure()
            self.engine.drop_silent(self.slot_timeout_s)
            now_s = time.monotonic()
            for client in self.clients:
                if client.stream is None and now_s - client.left_s > self.slot_timeout_s:
                    _LOG.info("client %s did not come back", client.client_id)
                    self._remove(client)
            self._decide_if_due()

    def _require_serving(self) -> None:
        if not self.ended.is_set():
            return
        if self.drain_reason == learner_pb2.DRAIN_REASON_FINISHED:
            raise RunFinishedError("the run has finished")
        raise LearnerUnavailableError("the policy server is stopping")

    def _succeed(self, client: Client, hello: policy_pb2.PlayHello) -> Client | None:
        """Returns the client if this is its same life, and ends what this hello replaces.

        Raises:
          StaleSessionError: this is a life that the client has replaced. Such a one may come back
            without knowing, as gRPC can lose the status that its stream was ended with.
        """
        if hello.client_run_id in client.older_lives:
            raise StaleSessionError(f"a newer life of client {client.client_id} is there")
        if client.stream is not None:
            client.stream.replace()
        is_same = client.client_run_id == hello.client_run_id
        if is_same and client.slots_hello == _slots_of(hello):
            return client
        self._remove(client)
        return None

    def _add(self, engine: PolicyEngine, hello: policy_pb2.PlayHello) -> Client:
        self.clients.require_room()
        number = self.clients.next_number()
        places = engine.open_slots(
            hello.slot_count,
            number,
            is_evaluation=hello.is_evaluation,
            is_greedy=hello.is_greedy,
        )
        slots = _slots_of(hello)
        client = Client(hello.client_id, hello.client_run_id, number, slots, places)
        self.clients.add(client)
        return client

    def _remove(self, client: Client) -> None:
        assert self.engine is not None
        client.stream = None  # a stream that ends later finds that the places are not its own
        self.engine.table.is_connected[client.places] = False
        self.engine.close_slots(client.places)
        self.clients.remove(client)

    def _take(self, arrivals: Sequence[Arrival]) -> None:
        """Takes messages; raises InvalidRequestError, with nothing taken, if one is wrong."""
        assert self.engine is not None
        assert self._decoder is not None
        assert self._answers is not None
        places, given = self._decoder.decode(
            [Message(one.content, one.client.places) for one in arrivals]
        )
        taken = self.engine.take(places, given)
        for client, _, content in arrivals:
            client.note(len(content.slots))
        for number in self.engine.table.client_numbers[taken.repeated].tolist():
            self.clients.numbered(number).num_repetitions += 1
        self._answers.send_lost(taken.lost)
        self._answers.send_actions(taken.answered)
        self._decide_if_due()

    def _decide_if_due(self) -> None:
        """Makes a batch of what waits, if it is full or its time is over."""
        engine = self.engine
        if engine is None or self.ended.is_set() or not engine.num_pending:
            self._waits_since_s = None
            return
        if self._waits_since_s is None:
            self._waits_since_s = time.monotonic()
        if not engine.has_room:
            return  # the source calls again when there is
        if self._is_overdue or engine.is_batch_full:
            self._decide(engine)
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._wait.seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._is_overdue = None, True
        self._decide_if_due()

    def _decide(self, engine: PolicyEngine) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._is_overdue = None, False
        start_s = time.monotonic()
        try:
            places = engine.decide()
        except Exception as error:  # from an own network
            _LOG.exception("no action could be chosen")
            self.end(ImpalaError(f"no action could be chosen: {error}"))
            return
        self._wait.note_decision(time.monotonic() - start_s)
        assert self._waits_since_s is not None
        self.figures.note_batch(len(places), start_s - self._waits_since_s)
        self._waits_since_s = None
        assert self._answers is not None
        self._answers.send_actions(places)


def _lives_before(before: Client | None, hello: policy_pb2.PlayHello) -> tuple[int, ...]:
    """Returns the lives that a new one has replaced."""
    if before is None:
        return ()
    lives = before.older_lives
    if before.client_run_id != hello.client_run_id:
        lives = (*lives, before.client_run_id)
    return lives[-_MAX_OLDER_LIVES:]


def _slots_of(hello: policy_pb2.PlayHello) -> tuple[int, bool, bool]:
    return hello.slot_count, hello.is_evaluation, hello.is_greedy
