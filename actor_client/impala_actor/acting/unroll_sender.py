"""UnrollSender: sends unrolls over one stream with a window, and resends unanswered ones.

The actor's loop calls `wait_for_room` and `send`; this object's own thread keeps the stream, reads
verdicts and reconnects. A message stays in the window until its verdict arrives or its session
ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from impala_actor.acting.learner_client import LearnerClient, Session
from impala_common.codec.response_bounds import checked_response
from impala_common.errors import (
    DamagedRequestError,
    ImpalaError,
    LearnerUnavailableError,
    QueueClosedError,
    RunFinishedError,
)
from impala_common.process import failpoints
from impala_common.rpc.errors import error_from
from impala_common.run.event_history import EventHistory
from impala_rl.v1 import learner_pb2

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_GOODBYE_S = 2.0


class _StreamBrokenError(Exception):
    """A stream broke after it had answered messages: open the next one at once."""


class UnrollSender:
    """One session's stream of unrolls."""

    def __init__(
        self,
        client: LearnerClient,
        session: Session,
        on_version: Callable[[int], None],
        history: EventHistory | None = None,
        on_answered: Callable[[int], None] = lambda num_unrolls: None,
    ) -> None:
        """Starts the stream's thread.

        Args:
          client: calls to the learner.
          session: from Register.
          on_version: called with the learner's newest version at every verdict.
          history: records each message sent, and its verdict.
          on_answered: called with the unrolls of each message that will not be sent again.
        """
        self._history = history or EventHistory(None)
        self._client = client
        self._session = session
        self._on_version = on_version
        self._on_answered = on_answered
        self._changed = threading.Condition()
        self._unanswered: OrderedDict[int, learner_pb2.PushUnrollsRequest] = OrderedDict()
        self._marks: dict[int, Sequence[str]] = {}  # of unanswered messages, for the history
        self._next_sequence = 1
        self._unsent: list[int] = []  # sequence numbers still to go out on this stream
        self._is_closing = False
        self._failure: ImpalaError | None = None
        self._stream_number = 0
        self.outcomes: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="impala-sender")
        self._thread.start()

    def wait_for_room(self) -> float:
        """Waits until the window has room; returns the seconds waited.

        Raises:
          RunFinishedError: the run is over.
          StaleSessionError: the session is over: register again.
          LearnerUnavailableError: the learner could not be reached in time.
          QueueClosedError: the actor is stopping.
        """
        start_s = time.perf_counter()
        with self._changed:
            while len(self._unanswered) >= self._session.window and self._failure is None:
                if self._client.stop.is_set():
                    raise QueueClosedError("the actor is stopping")
                self._client.heartbeat.beat()
                self._changed.wait(_POLL_S)
        self.raise_failure()
        return time.perf_counter() - start_s

    def raise_failure(self) -> None:
        """Raises the error that ended the stream for good, if any; errors of wait_for_room."""
        with self._changed:
            if self._failure is not None:
                raise self._failure

    def send(self, request: learner_pb2.PushUnrollsRequest, marks: Sequence[str] = ()) -> None:
        """Takes over a request with unrolls; `wait_for_room` comes first. Does not block.

        Args:
          request: complete except for actor and sequence number. Unrolls are packed into the
            request itself: adding a message to another one copies it.
          marks: of its unrolls, for the event history.
        """
        request.unrolls.actor.CopyFrom(self._session.actor)
        failpoints.hit("actor.before_send")
        with self._changed:
            self._enqueue(request, marks)

    def close(self) -> None:
        """Sends the goodbye, if the stream is open, and ends the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(_GOODBYE_S)
        with self._changed:
            for sequence_number in self._unanswered:
                self._record("info", sequence_number)

    def _enqueue(self, request: learner_pb2.PushUnrollsRequest, marks: Sequence[str]) -> None:
        message = request.unrolls
        message.sequence_number = self._next_sequence
        self._record("invoke", self._next_sequence, version=message.policy_version, marks=marks)
        self._unanswered[self._next_sequence] = request
        self._marks[self._next_sequence] = marks
        self._unsent.append(self._next_sequence)
        self._next_sequence += 1
        self._changed.notify_all()

    def _run(self) -> None:
        failure: ImpalaError
        try:
            while True:
                try:
                    self._client.retrying()(self._stream)
                except _StreamBrokenError as error:
                    _LOG.info("the stream broke (%s): reconnecting", error)
                    continue
                return
        except ImpalaError as error:
            failure = error
        except Exception as error:
            _LOG.exception("the sender failed")
            failure = ImpalaError(f"the sender failed: {error}")
        with self._changed:
            self._failure = failure
            self._changed.notify_all()

    def _stream(self) -> None:
        """Keeps one stream until goodbye.

        Raises:
          LearnerUnavailableError: it broke before anything was answered.
          _StreamBrokenError: it broke later.
          ImpalaError: the learner refused it.
        """
        with self._changed:
            if self._is_closing:
                return
            self._stream_number += 1
            self._unsent = list(self._unanswered)
        num_answers = 0
        call = self._client.push(self._requests(self._stream_number))
        try:
            for response in map(checked_response, call):
                if response.WhichOneof("payload") == "drain":
                    self._on_drain(response.drain)
                else:
                    self._on_verdict(response.verdict)
                    num_answers += 1
        except grpc.RpcError as rpc_error:
            error = error_from(rpc_error)
            if isinstance(error, LearnerUnavailableError | DamagedRequestError) and num_answers:
                raise _StreamBrokenError(str(error)) from rpc_error
            raise error from rpc_error
        finally:
            call.cancel()
            with self._changed:
                self._stream_number += 1  # ends the generator of requests
                self._changed.notify_all()
        with self._changed:
            if not self._is_closing:
                raise LearnerUnavailableError("the learner ended the stream")

    def _requests(self, stream_number: int) -> Iterator[learner_pb2.PushUnrollsRequest]:
        """Yields the requests of one stream. Runs on a thread of gRPC's."""
        hello = learner_pb2.PushHello(
            actor=self._session.actor, learner_run_id=self._session.learner_run_id
        )
        yield learner_pb2.PushUnrollsRequest(hello=hello)
        while True:
            with self._changed:
                while (
                    not self._unsent
                    and not self._is_closing
                    and self._stream_number == stream_number
                ):
                    self._changed.wait()
                if self._stream_number != stream_number:
                    return
                if not self._unsent:
                    break
                request = self._unanswered[self._unsent.pop(0)]
            yield request
        goodbye = learner_pb2.PushGoodbye(text="the actor ends")
        yield learner_pb2.PushUnrollsRequest(goodbye=goodbye)

    def _record(self, event: str, sequence_number: int, **fields: Any) -> None:  # Any: JSON
        if self._history.is_on:
            self._history.add(
                event, epoch=self._session.actor.session_epoch,
                learner_run_id=self._session.learner_run_id, seq=sequence_number, **fields,
            )  # fmt: skip

    def _on_verdict(self, verdict: learner_pb2.Verdict) -> None:
        name = learner_pb2.VerdictOutcome.Name(verdict.outcome).removeprefix("VERDICT_OUTCOME_")
        if failpoints.hit("actor.before_verdict"):
            return
        self._record(
            "ok" if name in ("ACCEPTED", "DUPLICATE") else "fail",
            verdict.sequence_number, outcome=name.lower(),
        )  # fmt: skip
        with self._changed:
            request = self._unanswered.pop(verdict.sequence_number, None)
            marks = self._marks.pop(verdict.sequence_number, ())
            self.outcomes[name] = self.outcomes.get(name, 0) + 1
            if request is not None and name == "CAPACITY":
                self._enqueue(request, marks)  # refused: send the same unrolls under a new number
                request = None
            self._changed.notify_all()
        if name in ("INVALID", "STALE", "CAPACITY"):
            _LOG.warning("unrolls %d: %s: %s", verdict.sequence_number, name, verdict.text)
        self._on_version(verdict.learner.policy_version)
        if request is not None:
            self._on_answered(request.unrolls.unroll_count)

    def _on_drain(self, drain: learner_pb2.Drain) -> None:
        if drain.reason == learner_pb2.DRAIN_REASON_FINISHED:
            raise RunFinishedError("the run has finished")
        raise LearnerUnavailableError("the learner is stopping")
