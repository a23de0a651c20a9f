"""EvaluationPeer: an evaluator of raw stubs, controlled by the test.

Beside `peer.Peer`, by the test's thread: the peer pushes unrolls of random numbers, so that each
message is one update, and reports whatever returns the test wants.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from raw_peer import ACCEPTED, ENVIRONMENT, B, Peer
from running_server import RunningServer

from impala_common.codec.specs import pack_environment_spec
from impala_common.spec.specs import EnvironmentSpec
from impala_rl.v1 import evaluation_pb2 as pb
from impala_rl.v1 import evaluation_pb2_grpc, unroll_pb2

TIMEOUT_S = 20.0
EPISODES = 4
"""Episodes that `make_result` reports."""


def make_result(return_mean: float = 1.0, **changes: Any) -> pb.EvaluationResult:
    """Returns a result that could be one."""
    fields = {
        "episode_count": EPISODES,
        "return_mean": return_mean,
        "standard_error": 0.5,
        "confidence_low": return_mean - 1.0,
        "confidence_high": return_mean + 1.0,
        "return_min": return_mean - 2.0,
        "return_max": return_mean + 2.0,
        "length_mean": 5.0,
        "length_min": 2,
        "length_max": 9,
    }
    return pb.EvaluationResult(**(fields | changes))


class Watching:
    """One open stream of candidates; the welcome is read."""

    def __init__(self, call: Any, tickets: dict[str, int]) -> None:
        self.call = call
        self._tickets = tickets
        assert next(call).WhichOneof("payload") is None

    def next(self) -> pb.WatchCandidatesResponse:
        return next(self.call)

    def candidate(self) -> pb.Candidate:
        response = self.next()
        assert response.WhichOneof("payload") == "candidate"
        self._tickets[response.candidate.name] = response.ticket
        return response.candidate


class EvaluationPeer(Peer):
    """A peer that trains, and evaluates."""

    def __init__(self, address: str, actor_id: str = "peer") -> None:
        super().__init__(address, actor_id)
        self.evaluations = evaluation_pb2_grpc.EvaluationServiceStub(self.channel)
        self._stream: Any = None
        self._watches: list[Watching] = []
        self.episode_return: float | None = None
        """Return of an episode that each message of unrolls tells of; None: of no episode."""
        self.tickets: dict[str, int] = {}
        """The newest ticket of each candidate, of any of this peer's evaluators."""

    def close(self) -> None:
        for watching in self._watches:
            watching.call.cancel()
        super().close()

    def train(self, server: RunningServer, num_updates: int = 1) -> int:
        """Has the learner make updates; returns the policy version then."""
        if self._stream is None:
            self.register()
            self._stream = self.push().hello()
        for _ in range(num_updates):
            assert self._stream.offer(self.message()).outcome == ACCEPTED
        target = self._number
        server.wait_until(lambda status: status.get("learner/policy_version", 0) >= target)
        return target

    def message(self, num_unrolls: int = B, **changes: Any) -> unroll_pb2.UnrollBatch:
        message = super().message(num_unrolls, **changes)
        if self.episode_return is not None:
            message.episodes.add(episode_return=self.episode_return, step_count=5)
        return message

    def push_unanswered(self, num_messages: int) -> None:
        """Sends unrolls and does not wait for verdicts: the run may end on the way."""
        for _ in range(num_messages):
            self._stream.send(unrolls=self.message())

    def watch(
        self, evaluator_id: str = "judge", spec: EnvironmentSpec = ENVIRONMENT, **changes: Any
    ) -> Watching:
        fields = {
            "evaluator_id": evaluator_id,
            "protocol_version": 1,
            "environment": pack_environment_spec(spec),
        }
        request = pb.WatchCandidatesRequest(**(fields | changes))
        call = self.evaluations.WatchCandidates(request, timeout=TIMEOUT_S)
        watching = Watching(call, self.tickets)
        self._watches.append(watching)
        return watching

    def candidate_weights(self, candidate: str, **changes: Any) -> tuple[Any, bytes]:
        """Returns header and file."""
        fields = {
            "learner_run_id": self.learner_run_id,
            "candidate": candidate,
            "ticket": self.tickets.get(candidate, 0),
        }
        request = pb.GetCandidateWeightsRequest(**(fields | changes))
        first, *rest = self.evaluations.GetCandidateWeights(request, timeout=TIMEOUT_S)
        return first.header, b"".join(response.chunk for response in rest)

    def report(
        self,
        candidate: str,
        sampled: float | pb.EvaluationResult | None = 1.0,
        greedy: float | pb.EvaluationResult | None = 1.0,
        **changes: Any,
    ) -> pb.ReportEvaluationResponse:
        """Reports results, or good ones with these mean returns."""
        fields = {
            "evaluator_id": "judge",
            "learner_run_id": self.learner_run_id,
            "candidate": candidate,
            "ticket": self.tickets.get(candidate, 0),
            "sampled": make_result(sampled) if isinstance(sampled, float) else sampled,
            "greedy": make_result(greedy) if isinstance(greedy, float) else greedy,
        }
        request = pb.ReportEvaluationRequest(**(fields | changes))
        return self.evaluations.ReportEvaluation(request, timeout=TIMEOUT_S)


@contextlib.contextmanager
def evaluation_peer_of(server: RunningServer) -> Iterator[EvaluationPeer]:
    with contextlib.closing(EvaluationPeer(server.address)) as peer:
        yield peer
