"""All streams go out by one path: deadlines, timed writes, slots; and one version rule."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from evaluation_peer import EPISODES, EvaluationPeer, evaluation_peer_of
from raw_http2 import HEADERS, RawClient, grpc_message
from raw_peer import refused
from running_server import RunningServer, make_config

import impala_server.front_end
from impala_common.rpc import limits
from impala_rl.v1 import evaluation_pb2 as pb
from impala_server.front_end.data_plane import timed_write
from impala_server.front_end.evaluation.evaluation_desk import MAX_EVALUATORS

pytestmark = pytest.mark.timeout(120)
GET_WEIGHTS = b"/impala_rl.v1.EvaluationService/GetCandidateWeights"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    monkeypatch.setattr(timed_write, "WRITE_DEADLINE_S", 0.5)
    # Larger than what gRPC buffers of a stream, or no write would ever wait.
    config = make_config(
        evaluation={"eval_interval_steps": 30, "eval_interval_episodes": EPISODES},
        model={"hidden_sizes": (1024, 1024)},
    )
    with RunningServer(tmp_path, config) as running:
        yield running


@pytest.fixture
def peer(server: RunningServer) -> Iterator[EvaluationPeer]:
    with evaluation_peer_of(server) as one:
        yield one


def test_readers_of_candidates_that_never_read_are_given_up(
    server: RunningServer, peer: EvaluationPeer
) -> None:
    """Seen to fail: four of them made every further call end with CAPACITY, for good."""
    watching = peer.watch()
    peer.train(server)
    candidate = watching.candidate()
    request = pb.GetCandidateWeightsRequest(
        learner_run_id=peer.learner_run_id, candidate=candidate.name
    )
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_EVALUATORS):
            client = stack.enter_context(RawClient(server.address, window=0))
            timeout = [(b"grpc-timeout", b"60S")]
            client.call(GET_WEIGHTS, timeout, grpc_message(request.SerializeToString()))
            assert any(kind == HEADERS for kind, _, _ in client.frames()), "it was not begun"

        assert len(peer.candidate_weights(candidate.name)[1]) > 1 << 20


@pytest.mark.parametrize("timeout_s", [None, 2 * limits.MAX_WEIGHTS_DEADLINE_S])
def test_candidate_weights_without_a_deadline_are_refused(
    server: RunningServer, peer: EvaluationPeer, timeout_s: float | None
) -> None:
    """Seen to fail: only GetWeights demanded one."""
    watching = peer.watch()
    peer.train(server)
    request = pb.GetCandidateWeightsRequest(
        learner_run_id=peer.learner_run_id, candidate=watching.candidate().name
    )
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "deadline"):
        list(peer.evaluations.GetCandidateWeights(request, timeout=timeout_s))


@pytest.mark.parametrize("version", [0, limits.PROTOCOL_VERSION + 1])
def test_version_of_the_protocol_is_judged_by_one_rule(peer: EvaluationPeer, version: int) -> None:
    """Seen to fail: each service had its own words and bounds."""
    texts = []
    for call in (peer.register, peer.watch):
        with pytest.raises(grpc.RpcError) as caught:
            call(protocol_version=version)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        texts.append(caught.value.details())

    assert len(set(texts)) == 1
    assert "upgrade" in texts[0]


def test_no_stream_is_written_past_the_timed_write() -> None:
    """Walks the sources, so that no new stream goes out by another way."""
    root = Path(impala_server.front_end.__path__[0])
    found = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*.py"))
        if re.search(r"context\.write\(", path.read_text("utf-8"))
    ]

    assert found == ["data_plane/timed_write.py"]
