"""EvaluationClient: an evaluator's calls to the learner.

Safe for several threads. Failed calls raise errors of this project.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf import duration_pb2

from impala_actor.acting.learner_client import LearnerClient
from impala_common.codec.evaluations import pack_result
from impala_common.codec.response_bounds import checked_response
from impala_common.codec.specs import pack_environment_spec, unpack_model_spec
from impala_common.codec.tensor_specs import unpack_tensor_spec
from impala_common.codec.weights_transfer import assemble_candidate, max_snapshot_bytes
from impala_common.rpc.errors import error_from
from impala_common.rpc.limits import PROTOCOL_VERSION, UNARY_DEADLINE_S, WEIGHTS_DEADLINE_S
from impala_common.rpc.security import ClientSecurity
from impala_common.run.evaluation_results import EvaluationResult
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec
from impala_rl.v1 import evaluation_pb2 as pb
from impala_rl.v1 import evaluation_pb2_grpc, learner_pb2

_LOG = logging.getLogger(__name__)
PATIENCE_S = 30.0
"""Seconds that a call about one candidate is tried while the learner cannot be reached."""


class Task(NamedTuple):
    """A candidate to play."""

    learner_run_id: int
    candidate: str
    trained_steps: int
    policy_version: int
    num_episodes: int
    seed: int
    model: ModelSpec
    observation_leaves: tuple[TensorSpec, ...]
    ticket: int = 0


class Welcome(NamedTuple):
    """The first message of a stream of candidates: the learner has registered this evaluator."""


class WatchEnd(NamedTuple):
    """The last message of a stream of candidates."""

    is_finished: bool


class EvaluationClient(LearnerClient):
    """A connection of an evaluator to one learner address."""

    def __init__(
        self,
        address: str,
        evaluator_id: str,
        connect_timeout_s: float = 0.0,
        stop: threading.Event | None = None,
        security: ClientSecurity | None = None,
    ) -> None:
        """Connects when first used; see LearnerClient."""
        super().__init__(address, evaluator_id, connect_timeout_s, stop, security)
        self._evaluations = evaluation_pb2_grpc.EvaluationServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def watch(self, environment: EnvironmentSpec, model: str = "") -> Watch:
        """Opens a stream of candidates; nothing is raised before it is read.

        Args:
          environment: specification of this evaluator's environment.
          model: name of the own network it was started with; "" for none.
        """
        request = pb.WatchCandidatesRequest(
            evaluator_id=self._actor.actor_id,
            protocol_version=PROTOCOL_VERSION,
            environment=pack_environment_spec(environment),
            model=model,
        )
        return Watch(self._evaluations.WatchCandidates(request))

    def get_candidate_weights(
        self, task: Task, weights: Sequence[TensorSpec], is_wanted: Callable[[], bool]
    ) -> bytes:
        """Returns the safetensors file of a candidate's weights, digest checked.

        Args:
          task: the candidate.
          weights: the tensors its network has; more bytes than theirs are not taken.
          is_wanted: whether to try once more when the learner cannot be reached.

        Raises:
          NotFoundError: the learner no longer has it.
          StaleSessionError: it belongs to another life of the learner.
          LearnerUnavailableError: not reachable within PATIENCE_S, or wanted no more.
        """
        request = pb.GetCandidateWeightsRequest(
            learner_run_id=task.learner_run_id, candidate=task.candidate, ticket=task.ticket
        )

        def attempt() -> bytes:
            responses = self._evaluations.GetCandidateWeights(request, timeout=WEIGHTS_DEADLINE_S)
            try:
                return assemble_candidate(
                    map(checked_response, responses), max_snapshot_bytes(weights)
                )
            finally:
                responses.cancel()  # what is not taken must not wait in the connection

        return self._patiently(attempt, PATIENCE_S, is_wanted)

    def report(
        self,
        task: Task,
        sampled: EvaluationResult,
        greedy: EvaluationResult,
        duration_s: float,
        is_wanted: Callable[[], bool],
    ) -> bool:
        """Reports a candidate's results, until the learner answers; returns whether it is the best.

        Args:
          task: the candidate.
          sampled: result with drawn actions.
          greedy: result with the likeliest actions.
          duration_s: seconds of the evaluation.
          is_wanted: whether to try once more when the learner cannot be reached.

        Raises:
          NotFoundError: the learner no longer wants the result.
          StaleSessionError: it belongs to another life of the learner.
          InvalidRequestError: the numbers cannot be those of an evaluation.
          LearnerUnavailableError: not reachable within PATIENCE_S, or wanted no more.
        """
        duration = duration_pb2.Duration()
        duration.FromMilliseconds(round(1000 * duration_s))
        request = pb.ReportEvaluationRequest(
            evaluator_id=self._actor.actor_id,
            learner_run_id=task.learner_run_id,
            candidate=task.candidate,
            ticket=task.ticket,
            sampled=pack_result(sampled),
            greedy=pack_result(greedy),
            duration=duration,
        )

        def attempt() -> Any:  # Any: a ReportEvaluationResponse; the stub has no types
            return self._evaluations.ReportEvaluation(request, timeout=UNARY_DEADLINE_S)

        answer = checked_response(self._patiently(attempt, PATIENCE_S, is_wanted))
        if answer.is_doubtful:
            _LOG.warning(
                "the learner finds the results of %s doubtful: returns far beyond those of "
                "training; it does not become the best checkpoint", task.candidate,
            )  # fmt: skip
        return bool(answer.is_best)

    def report_failure(self, task: Task, text: str, is_wanted: Callable[[], bool]) -> None:
        """Reports that a candidate has no result, so that the learner gives it up; as `report`."""
        request = pb.ReportEvaluationRequest(
            evaluator_id=self._actor.actor_id,
            learner_run_id=task.learner_run_id,
            candidate=task.candidate,
            ticket=task.ticket,
            failure=text[:1000],
        )

        def attempt() -> Any:  # Any: a ReportEvaluationResponse; the stub has no types
            return self._evaluations.ReportEvaluation(request, timeout=UNARY_DEADLINE_S)

        self._patiently(attempt, PATIENCE_S, is_wanted)


class Watch:
    """An open stream of candidates."""

    def __init__(self, call: Any) -> None:  # Any: grpc's call, which iterates and cancels
        """Wraps an open call."""
        self._call = call

    def messages(self) -> Iterator[Task | Welcome | WatchEnd]:
        """Yields the learner's messages.

        Raises:
          ImpalaError: the stream broke or was refused; the text has the reason.
        """
        try:
            for response in map(checked_response, self._call):
                match response.WhichOneof("payload"):
                    case "candidate":
                        yield _unpack(response)
                    case "end":
                        yield WatchEnd(response.end == learner_pb2.DRAIN_REASON_FINISHED)
                        return
                    case _:
                        yield Welcome()
        except grpc.RpcError as error:
            raise error_from(error) from error

    def cancel(self) -> None:
        """Ends the stream. From any thread."""
        self._call.cancel()


def _unpack(response: pb.WatchCandidatesResponse) -> Task:
    candidate = response.candidate
    return Task(
        learner_run_id=response.learner.learner_run_id,
        candidate=candidate.name,
        trained_steps=candidate.trained_steps,
        policy_version=candidate.policy_version,
        num_episodes=candidate.episode_count,
        seed=candidate.seed,
        model=unpack_model_spec(candidate.model),
        observation_leaves=tuple(map(unpack_tensor_spec, candidate.observation_leaves)),
        ticket=response.ticket,
    )
