"""Bench: an unroll sender against a learner that the test plays.

The learner is a real gRPC server on a free port of 127.0.0.1. It does nothing by
itself: the test takes what came in and says what goes out, stream by stream.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from impala_actor.acting.learner_client import LearnerClient, Session
from impala_actor.acting.unroll_sender import UnrollSender
from impala_common.errors import ImpalaError
from impala_common.rpc.channel import server_options
from impala_common.rpc.errors import status_of
from impala_common.testing.unrolls import make_vector_spec
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc, unroll_pb2

WAIT_S = 10.0
WINDOW = 3
LEARNER_RUN_ID = 77
ACTOR = header_pb2.ActorHeader(actor_id="a", actor_run_id=5, session_epoch=2)


class Stream:
    """One stream as the learner sees it: what came in, and what the test lets out."""

    def __init__(self, requests: Iterator[Any], context: grpc.ServicerContext) -> None:
        self._context = context
        self._incoming: queue.Queue[Any] = queue.Queue()
        self.outgoing: queue.Queue[Any] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(requests,), name="test-reader")
        self._reader.start()

    def _read(self, requests: Iterator[Any]) -> None:
        try:
            for request in requests:
                self._incoming.put(request)
        except Exception:
            pass  # the stream was broken on purpose
        self._incoming.put(None)

    def serve(self) -> Iterator[learner_pb2.PushUnrollsResponse]:
        """Yields what the test says, until it says how to end."""
        while True:
            say = self.outgoing.get(timeout=WAIT_S)
            if say is None:
                return
            if isinstance(say, grpc.StatusCode):
                self._context.abort(say, "broken by the test")
            if isinstance(say, ImpalaError):
                self._context.abort_with_status(status_of(say))
            yield say

    def take(self, payload: str) -> Any:
        """Returns the next message, which must be a `payload`."""
        request = self._incoming.get(timeout=WAIT_S)
        assert request is not None, f"the stream ended; expected {payload}"
        assert request.WhichOneof("payload") == payload
        return getattr(request, payload)

    def take_numbers(self, count: int) -> list[int]:
        """Returns the sequence numbers of the next `count` unroll messages."""
        return [self.take("unrolls").sequence_number for _ in range(count)]

    def is_silent(self, for_s: float = 0.2) -> bool:
        """Returns whether nothing more comes for a while."""
        try:
            self._incoming.get(timeout=for_s)
        except queue.Empty:
            return True
        return False

    def take_end(self) -> None:
        """Waits until the client has half-closed or gone."""
        assert self._incoming.get(timeout=WAIT_S) is None

    def answer(self, number: int, outcome: str = "ACCEPTED", version: int = 0) -> None:
        """Lets a verdict out."""
        response = learner_pb2.PushUnrollsResponse()
        response.verdict.learner.policy_version = version
        response.verdict.sequence_number = number
        response.verdict.outcome = learner_pb2.VerdictOutcome.Value(f"VERDICT_OUTCOME_{outcome}")
        self.outgoing.put(response)

    def drain(self, reason: str) -> None:
        """Lets a drain out."""
        response = learner_pb2.PushUnrollsResponse()
        response.drain.reason = learner_pb2.DrainReason.Value(f"DRAIN_REASON_{reason}")
        self.outgoing.put(response)


class FakeLearner(learner_pb2_grpc.LearnerServiceServicer):
    """A learner whose every word is the test's."""

    def __init__(self) -> None:
        self.streams: queue.Queue[Stream] = queue.Queue()
        self._all: list[Stream] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=server_options())
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def PushUnrolls(self, requests: Any, context: Any) -> Any:  # noqa: N802
        stream = Stream(requests, context)
        self._all.append(stream)
        self.streams.put(stream)
        yield from stream.serve()

    def accept(self) -> Stream:
        """Returns the next stream after its hello."""
        stream = self.streams.get(timeout=WAIT_S)
        hello = stream.take("hello")
        assert hello == learner_pb2.PushHello(actor=ACTOR, learner_run_id=LEARNER_RUN_ID)
        return stream

    def end_streams(self) -> None:
        for stream in self._all:
            stream.outgoing.put(None)

    def close(self) -> None:
        self.end_streams()
        self._server.stop(0).wait(WAIT_S)
        for stream in self._all:
            stream._reader.join(WAIT_S)


class Bench:
    """A fake learner, a sender, and the versions the sender told of."""

    def __init__(self, connect_timeout_s: float = 0.0) -> None:
        self.learner = FakeLearner()
        self.client = LearnerClient(self.learner.address, "a", connect_timeout_s)
        self.versions: list[int] = []
        spec = make_vector_spec()
        session = Session(ACTOR, LEARNER_RUN_ID, 0, 1, spec, None, WINDOW, 1024, False, False, ())  # type: ignore[arg-type]
        self.sender = UnrollSender(self.client, session, self.versions.append)

    def send(self, marker: int) -> None:
        """Sends a message that can be told by its policy_version."""
        self.sender.wait_for_room()
        message = unroll_pb2.UnrollBatch(policy_version=marker)
        self.sender.send(learner_pb2.PushUnrollsRequest(unrolls=message))

    def wait_for_outcomes(self, **expected: int) -> None:
        """Waits until so many verdicts of each outcome, and no others, have been counted."""
        with self.sender._changed:
            assert self.sender._changed.wait_for(
                lambda: self.sender.outcomes == expected, WAIT_S
            ), self.sender.outcomes

    def close(self) -> None:
        self.client.stop.set()
        self.learner.end_streams()
        self.sender.close()
        self.client.close()
        self.learner.close()
        self.sender._thread.join(WAIT_S)
        assert not self.sender._thread.is_alive()
