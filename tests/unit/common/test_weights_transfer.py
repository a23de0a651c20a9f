"""Incomplete, damaged and stale weights are not loaded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from impala_actor.acting.learner_client import LearnerClient, Session, Weights
from impala_common.codec.weights import digest_of_snapshot
from impala_common.errors import ImpalaError, LearnerUnavailableError, StaleSessionError
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc

DATA = bytes(range(256)) * 4
RUN_ID = 77


class Sender(learner_pb2_grpc.LearnerServiceServicer):
    """Sends what it is told to."""

    def __init__(self) -> None:
        self.chunks = [DATA[:500], DATA[500:]]
        self.run_id = RUN_ID
        self.breaks_off = False

    def GetWeights(  # noqa: N802
        self, request: Any, context: Any
    ) -> Iterator[learner_pb2.GetWeightsResponse]:
        header = learner_pb2.WeightsHeader(
            learner=header_pb2.LearnerHeader(learner_run_id=self.run_id, policy_version=5),
            total_bytes=len(DATA),
            digest=digest_of_snapshot(DATA),
        )
        yield learner_pb2.GetWeightsResponse(header=header)
        for chunk in self.chunks:
            yield learner_pb2.GetWeightsResponse(chunk=chunk)
        if self.breaks_off:
            context.abort(grpc.StatusCode.UNAVAILABLE, "killed")


@pytest.fixture
def sender() -> Iterator[tuple[Sender, LearnerClient]]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    service = Sender()
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = LearnerClient(f"127.0.0.1:{port}", "actor")
    yield service, client
    client.close()
    server.stop(0).wait(5.0)


def get(client: LearnerClient) -> Weights | None:
    session: Any = type("Of", (), {"learner_run_id": RUN_ID, "weights": ()})
    typed: Session = session
    return client.get_weights(typed, None)


def test_weights_that_break_off_are_not_loaded(sender: tuple[Sender, LearnerClient]) -> None:
    """Seen to fail, with what came taken for all, without the look at size and digest."""
    service, client = sender
    assert get(client) == Weights(5, DATA)
    flipped = DATA[:700] + bytes([DATA[700] ^ 1]) + DATA[701:]
    for chunks, breaks_off in (
        ([], False),
        ([DATA[:500]], False),
        ([DATA[:500]], True),
        ([flipped], False),
        ([DATA[500:], DATA[:500]], False),
        ([DATA, DATA], False),
    ):
        service.chunks, service.breaks_off = chunks, breaks_off

        with pytest.raises(LearnerUnavailableError):
            get(client)


def test_weights_of_another_life_are_not_loaded(sender: tuple[Sender, LearnerClient]) -> None:
    service, client = sender
    service.run_id = RUN_ID + 1

    with pytest.raises(StaleSessionError) as caught:
        get(client)
    assert isinstance(caught.value, ImpalaError)
