"""Peer: an actor of raw stubs, controlled by the test.

For tests that break the contract on purpose, or look at single messages. Used beside
`harness.RunningServer`, by the test's thread.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from running_server import RunningServer

from impala_common.codec.specs import pack_environment_spec, unpack_unroll_spec
from impala_common.rpc.channel import make_channel
from impala_common.rpc.errors import DOMAIN
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec, UnrollSpec
from impala_common.testing.unrolls import make_unrolls, pack_stacked
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc, unroll_pb2

WAIT_S = 10.0
REGISTER_S = 60.0  # the learner may still be importing torch
ENVIRONMENT = EnvironmentSpec((TensorSpec("observation", (4,), "float32"),), ActionSpec.discrete(2))
B = 8
"""Unrolls of a batch in make_config."""
ACCEPTED = learner_pb2.VERDICT_OUTCOME_ACCEPTED


class Push:
    """One open PushUnrolls stream."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._requests: queue.Queue[Any] = queue.Queue()
        self.call = peer.stub.PushUnrolls(iter(self._requests.get, None), timeout=30.0)

    def send(self, **payload: Any) -> None:
        self._requests.put(learner_pb2.PushUnrollsRequest(**payload))

    def half_close(self) -> None:
        self._requests.put(None)

    def hello(self, **changes: Any) -> Push:
        """Says hello as the peer's session, or as `changes` say."""
        fields = {"actor": self._peer.actor, "learner_run_id": self._peer.learner_run_id}
        self.send(hello=learner_pb2.PushHello(**(fields | changes)))
        return self

    def next(self) -> learner_pb2.PushUnrollsResponse:
        return next(self.call)

    def verdict(self) -> learner_pb2.Verdict:
        response = self.next()
        assert response.WhichOneof("payload") == "verdict"
        return response.verdict

    def offer(self, message: unroll_pb2.UnrollBatch) -> learner_pb2.Verdict:
        """Sends a message and returns its verdict."""
        self.send(unrolls=message)
        return self.verdict()

    def end(self) -> grpc.RpcError:
        """Returns the error the stream ends with."""
        with pytest.raises(grpc.RpcError) as caught:
            self.next()
        return caught.value


class Peer:
    """Somebody who speaks the protocol, well or badly."""

    def __init__(self, address: str, actor_id: str = "peer", run_id: int = 11) -> None:
        self.channel = make_channel(address)
        self.stub = learner_pb2_grpc.LearnerServiceStub(self.channel)
        self.actor = header_pb2.ActorHeader(actor_id=actor_id, actor_run_id=run_id)
        self.learner_run_id = 0
        self.unroll: UnrollSpec | None = None
        self._number = 0
        self._streams: list[Push] = []

    def close(self) -> None:
        """Ends all streams and the connection."""
        for stream in self._streams:
            stream.half_close()  # ends gRPC's thread that waits for the next request
        self.channel.close()

    def register(
        self, spec: EnvironmentSpec = ENVIRONMENT, **changes: Any
    ) -> learner_pb2.RegisterResponse:
        fields = {
            "actor": self.actor,
            "protocol_version": 1,
            "environment": pack_environment_spec(spec),
            "environment_slot_count": 4,
            "host": "test",
        }
        request = learner_pb2.RegisterRequest(**(fields | changes))
        response = self.stub.Register(request, timeout=REGISTER_S)
        self.actor.session_epoch = response.session_epoch
        self.learner_run_id = response.learner.learner_run_id
        self.unroll = unpack_unroll_spec(response.unroll, spec)
        return response

    def push(self) -> Push:
        self._streams.append(Push(self))
        return self._streams[-1]

    def message(self, num_unrolls: int = B, **changes: Any) -> unroll_pb2.UnrollBatch:
        """Returns good unrolls of random numbers under the next sequence number."""
        self._number += 1
        assert self.unroll is not None
        unrolls = make_unrolls(self.unroll, num_unrolls, seed=self._number)
        for name, value in changes.items():
            unrolls[name].flat[0] = value
        message = pack_stacked(unrolls, self.unroll, compress=False)
        message.actor.CopyFrom(self.actor)
        message.sequence_number = self._number
        return message

    def get_weights(self, **fields: Any) -> tuple[learner_pb2.WeightsHeader, list[bytes]]:
        """Returns header and chunks."""
        request = learner_pb2.GetWeightsRequest(**fields)
        first, *rest = self.stub.GetWeights(request, timeout=WAIT_S)
        assert first.WhichOneof("payload") == "header"
        assert all(response.WhichOneof("payload") == "chunk" for response in rest)
        return first.header, [response.chunk for response in rest]


@contextlib.contextmanager
def peer_of(server: RunningServer, actor_id: str = "peer", run_id: int = 11) -> Iterator[Peer]:
    with contextlib.closing(Peer(server.address, actor_id, run_id)) as peer:
        yield peer


def reason_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Returns code, reason and metadata of a refused call."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == DOMAIN
    return error.code(), info.reason, dict(info.metadata)


@contextlib.contextmanager
def refused(
    code: grpc.StatusCode, reason: str, text: str | None = None
) -> Iterator[dict[str, str]]:
    """A context whose call must be refused so; yields the metadata."""
    facts: dict[str, str] = {}
    with pytest.raises(grpc.RpcError, match=text) as caught:
        yield facts
    got_code, got_reason, metadata = reason_of(caught.value)
    assert (got_code, got_reason) == (code, reason)
    facts.update(metadata)


def assert_alive(server: RunningServer) -> None:
    """Somebody else can still take part."""
    with peer_of(server, "somebody-else", 99) as other:
        other.register()
        assert other.push().hello().offer(other.message(1)).outcome == ACCEPTED
