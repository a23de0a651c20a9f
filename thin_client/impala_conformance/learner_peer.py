"""LearnerPeer and Actor: actors made of raw stubs, without environments and networks.

An Actor keeps the contract of learner.proto unless a rule changes its messages. Its unrolls are
made up, so a run that they reach is of no use afterwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from impala_conformance.connection import Connection
from impala_conformance.open_stream import OpenStream, require_refusal
from impala_conformance.refusal import read_refusal
from impala_conformance.rule import ViolationError, require
from impala_conformance.unroll_maker import UnrollMaker, set_digest
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc, spec_pb2, unroll_pb2

INVALID = "INVALID_ARGUMENT INVALID_REQUEST"
PROTOCOL_VERSION = 1
ACCEPTED = learner_pb2.VERDICT_OUTCOME_ACCEPTED
_CAPACITY = learner_pb2.VERDICT_OUTCOME_CAPACITY
_ATTEMPTS = 5


class LearnerPeer:
    """What rules of a learner are played against.

    Attributes:
      environment: what actors say that they play.
      patience_s: deadline of calls.
      connection: how the learner is reached.
      stop: makes the learner stop; None: that cannot be done.
      stub: for calls that no Actor makes.
      channel: for methods that do not exist.
    """

    def __init__(
        self,
        connection: Connection,
        environment: spec_pb2.EnvironmentSpec,
        *,
        patience_s: float = 10.0,
        stop: Callable[[], None] | None = None,
    ) -> None:
        """Connects when first used."""
        self.connection = connection
        self.environment = environment
        self.patience_s = patience_s
        self.stop = stop
        self.channel = connection.open()
        self.stub: Any = learner_pb2_grpc.LearnerServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self._streams: list[tuple[OpenStream, Actor]] = []

    def actor(self, **changes: Any) -> Actor:
        """Returns a new actor that has registered."""
        actor = Actor(self)
        actor.register(**changes)
        return actor

    def require_refused_register(self, *expected: str, **changes: Any) -> dict[str, str]:
        """Registers as a new actor, with fields changed; it must be refused. Returns metadata."""
        try:
            self.stub.Register(Actor(self).make_register(**changes), timeout=self.patience_s)
        except grpc.RpcError as error:
            return require_refusal(error, *expected).metadata
        raise ViolationError(f"expected {' or '.join(expected)}, got a session for {changes}")

    def get_weights(self, **fields: Any) -> tuple[learner_pb2.WeightsHeader, list[bytes]]:
        """Returns header and chunks of GetWeights."""
        call = self.stub.GetWeights(
            learner_pb2.GetWeightsRequest(**fields), timeout=self.patience_s
        )
        responses = list(call)
        kinds = [response.WhichOneof("payload") for response in responses]
        is_right = kinds[:1] == ["header"] and set(kinds[1:]) <= {"chunk"}
        require(is_right, "a header, then chunks", kinds[:3])
        return responses[0].header, [response.chunk for response in responses[1:]]

    def stream(self, actor: Actor) -> OpenStream:
        """Opens a PushUnrolls stream and says nothing."""
        stream = OpenStream(self.stub.PushUnrolls, learner_pb2.PushUnrollsRequest, self.patience_s)
        self._streams.append((stream, actor))
        return stream

    def close_streams(self) -> None:
        """Ends all streams that were opened."""
        for stream, _ in self._streams:
            stream.close()
        self._streams.clear()

    def require_alive(self) -> None:
        """Raises ViolationError unless a new actor's unroll is accepted."""
        try:
            actor = self.actor()
            actor.push_accepted(actor.push())
            actor.leave()
        except (ViolationError, grpc.RpcError) as error:
            text = read_refusal(error) if isinstance(error, grpc.RpcError) else error
            raise ViolationError(f"afterwards a new actor is not served: {text}") from error
        finally:
            self.close_streams()

    def close(self) -> None:
        """Disconnects."""
        self.close_streams()
        self.channel.close()


class Actor:
    """One life of one actor.

    Attributes:
      header: of its messages.
      registered: what the learner answered.
      newest_version: of the weights, as far as is known.
      last_stream: opened last.
    """

    def __init__(self, peer: LearnerPeer, actor_id: str = "") -> None:
        """Draws a life, and a name if none is given."""
        self.header = header_pb2.ActorHeader(
            actor_id=actor_id or f"conformance-{secrets.token_hex(6)}",
            actor_run_id=secrets.randbits(64),
        )
        self.registered = learner_pb2.RegisterResponse()
        self.newest_version = 0
        self.last_stream: OpenStream
        self._peer = peer
        self._number = 0
        self._maker: UnrollMaker

    def make_register(self, **changes: Any) -> learner_pb2.RegisterRequest:
        """Returns the request of an actor with one slot, with fields changed."""
        actor = header_pb2.ActorHeader()
        actor.CopyFrom(self.header)
        actor.session_epoch = 0
        fields: dict[str, Any] = {
            "actor": actor,
            "protocol_version": PROTOCOL_VERSION,
            "environment": self._peer.environment,
            "environment_slot_count": 1,
            "host": "conformance",
        }
        return learner_pb2.RegisterRequest(**(fields | changes))

    def register(self, **changes: Any) -> learner_pb2.RegisterResponse:
        """Opens a session."""
        request = self.make_register(**changes)
        self.registered = self._peer.stub.Register(request, timeout=self._peer.patience_s)
        self.header.session_epoch = self.registered.session_epoch
        self.newest_version = self.registered.learner.policy_version
        self._maker = UnrollMaker(self._peer.environment, self.registered)
        self._number = 0
        return self.registered

    def push(self, **changes: Any) -> OpenStream:
        """Opens a stream and says hello, with fields changed."""
        self.last_stream = self._peer.stream(self)
        fields: dict[str, Any] = {
            "actor": self.header,
            "learner_run_id": self.registered.learner.learner_run_id,
        }
        self.last_stream.send(hello=learner_pb2.PushHello(**(fields | changes)))
        return self.last_stream

    def message(
        self, change: Callable[[unroll_pb2.UnrollBatch], object] = lambda message: None
    ) -> unroll_pb2.UnrollBatch:
        """Returns one good unroll under the next number; `change` spoils it before its digest."""
        self._number += 1
        message = self._maker.make(1)
        message.actor.CopyFrom(self.header)
        message.sequence_number = self._number
        message.policy_version = self.newest_version
        change(message)
        set_digest(message)
        return message

    def verdict(self, stream: OpenStream) -> learner_pb2.Verdict:
        """Returns the next verdict; whose it is, is the caller's to check."""
        response = stream.next()
        kind = response.WhichOneof("payload")
        require(kind == "verdict", "a verdict", kind)
        verdict: learner_pb2.Verdict = response.verdict
        self.newest_version = max(self.newest_version, verdict.learner.policy_version)
        return verdict

    def offer(self, stream: OpenStream, message: unroll_pb2.UnrollBatch) -> learner_pb2.Verdict:
        """Sends a message and returns its verdict."""
        stream.send(unrolls=message)
        verdict = self.verdict(stream)
        number = message.sequence_number
        require(
            verdict.sequence_number == number,
            f"the verdict of message {number}",
            verdict.sequence_number,
        )
        return verdict

    def require_verdict(
        self, stream: OpenStream, message: unroll_pb2.UnrollBatch, outcome: Any, of: str = ""
    ) -> None:
        """Sends a message, whose verdict must be `outcome`; `of` describes the message."""
        verdict = self.offer(stream, message)
        require(
            verdict.outcome == outcome, f"{name_of(outcome)}{of and ' for ' + of}", show(verdict)
        )

    def push_accepted(self, stream: OpenStream) -> unroll_pb2.UnrollBatch:
        """Sends a good message until there is room for it; returns it."""
        for _ in range(_ATTEMPTS):
            message = self.message()
            verdict = self.offer(stream, message)
            if verdict.outcome != _CAPACITY:
                break
        require(verdict.outcome == ACCEPTED, "ACCEPTED", show(verdict))
        return message

    def leave(self) -> None:
        """Says goodbye on the newest stream, which must end without an error."""
        self.last_stream.send(goodbye=learner_pb2.PushGoodbye(text="the rule is over"))
        self.last_stream.half_close()
        left = [one.WhichOneof("payload") for one in self.last_stream.read_to_end()]
        require(not left, "no further verdict after those of all messages", left)


def name_of(outcome: Any) -> str:
    """Returns the short name of an outcome."""
    return learner_pb2.VerdictOutcome.Name(outcome).removeprefix("VERDICT_OUTCOME_")


def show(verdict: learner_pb2.Verdict) -> str:
    """Returns outcome and text of a verdict."""
    return f"{name_of(verdict.outcome)} {verdict.text}".strip()


def names(items: Iterable[Any]) -> list[str]:
    """Returns the name of each specification."""
    return [item.name for item in items]
