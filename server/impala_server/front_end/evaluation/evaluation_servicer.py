"""EvaluationServicer: unpacks requests of `impala_rl.v1.EvaluationService`, packs responses.

Runs on the front end's event loop, beside LearnerService. Files are read on a thread, so that
actors never wait for an evaluator's disk.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from impala_common.codec.evaluations import unpack_result
from impala_common.codec.specs import pack_model_spec, unpack_environment_spec
from impala_common.codec.tensor_specs import pack_tensor_spec
from impala_common.codec.weights import digest_of_snapshot
from impala_common.config import TrainConfig
from impala_common.errors import (
    CheckpointError,
    InvalidRequestError,
    LearnerUnavailableError,
    NotFoundError,
    StaleSessionError,
)
from impala_common.process.logs import printable
from impala_common.rpc.limits import WEIGHTS_CHUNK_BYTES
from impala_common.run.checkpoint_manifest import read_group
from impala_common.run.evaluation_results import validate_result
from impala_common.run.run_directory import RunDirectory
from impala_common.spec.specs import validate_same_model
from impala_rl.v1 import evaluation_pb2 as pb
from impala_rl.v1 import evaluation_pb2_grpc, header_pb2, learner_pb2
from impala_server.front_end.data_plane.sessions import validate_actor_id
from impala_server.front_end.data_plane.timed_write import write_in_time
from impala_server.front_end.data_plane.transfer_slots import TransferSlots
from impala_server.front_end.data_plane.weights_transfer import require_deadline, send_weights
from impala_server.front_end.evaluation.evaluation_desk import (
    FETCH_LEASE_S,
    LEASE_S,
    MAX_EVALUATORS,
    Seat,
    WaitingCandidate,
)
from impala_server.front_end.learner_link import LearnerLink, OpenRun
from impala_server.front_end.listener.protocol_version import validate_protocol_version
from impala_server.front_end.listener.wire_errors import translated

_LOG = logging.getLogger(__name__)
_Context = grpc.aio.ServicerContext[Any, Any]
EVALUATION_SERVICE = "impala_rl.v1.EvaluationService"
_SEED_KEY = 0xE7A1
_MAX_DURATION_S = 1e9


class EvaluationServicer(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Evaluation during training."""

    def __init__(self, config: TrainConfig, run: RunDirectory, link: LearnerLink) -> None:
        """Serves the candidates that `link` announces, from the folder of `run`."""
        self._config = config
        self._run = run
        self._link = link
        self._seed = evaluation_seed(config.job.seed)
        self._transfers = TransferSlots(0, num_transfers=MAX_EVALUATORS)

    async def WatchCandidates(  # noqa: N802
        self, request: pb.WatchCandidatesRequest, context: _Context
    ) -> None:
        """Sends candidates to an evaluator, one at a time."""
        async with translated(context):
            validate_protocol_version(request.protocol_version)
            validate_actor_id(request.evaluator_id)
            environment = unpack_environment_spec(request.environment)
            desk = self._link.evaluations
            seat = desk.join(request.evaluator_id, context.peer())
            _LOG.info("evaluator %s is here", seat.evaluator_id)
            try:
                await write_in_time(context, pb.WatchCandidatesResponse(learner=self._header()))
                while not self._link.judged.is_set() and self._link.run is None:
                    await self._wait(seat)
                if self._link.run is not None:
                    self._link.require_environment(self._link.run, environment)
                    validate_same_model(self._link.run.model.name, request.model)
                await self._send_candidates(seat, context)
            finally:
                desk.leave(seat)

    async def GetCandidateWeights(  # noqa: N802
        self, request: pb.GetCandidateWeightsRequest, context: _Context
    ) -> None:
        """Sends the weights of a candidate, in chunks."""
        async with translated(context):
            run = self._require_run(request.learner_run_id)
            if not self._link.evaluations.holds(request.candidate):
                raise _unknown(request.candidate)
            require_deadline(context, "GetCandidateWeights")
            self._link.evaluations.note_fetch(request.candidate, request.ticket, context.peer())

            async def prepare() -> tuple[Any, Iterable[Any]]:
                folder = self._run.candidates_path / request.candidate
                data, digest = await asyncio.to_thread(_read_weights, folder)
                header = learner_pb2.WeightsHeader(
                    learner=run.header(), total_bytes=len(data), digest=digest
                )
                return pb.GetCandidateWeightsResponse(header=header), _chunks_of(data)

            try:
                await send_weights(context, self._transfers, prepare)
            except CheckpointError as error:
                _LOG.warning("a candidate cannot be sent: %s", error)
                raise _unknown(request.candidate) from error

    async def ReportEvaluation(  # noqa: N802
        self, request: pb.ReportEvaluationRequest, context: _Context
    ) -> pb.ReportEvaluationResponse:
        """Takes a candidate's results."""
        async with translated(context):
            run = self._require_run(request.learner_run_id)
            validate_actor_id(request.evaluator_id)
            self._link.evaluations.require_reporter(
                request.evaluator_id, request.candidate, request.ticket, context.peer()
            )
            if request.failure:
                _LOG.warning(
                    "%s is given up: evaluator %s could not evaluate it: %s",
                    request.candidate, request.evaluator_id, printable(request.failure, 500),
                )  # fmt: skip
                self._link.evaluations.give_up(request.candidate)
                return pb.ReportEvaluationResponse(learner=run.header())
            results = {}
            for mode in ("sampled", "greedy"):
                result = unpack_result(getattr(request, mode))
                validate_result(mode, result, self._config.evaluation.eval_interval_episodes)
                results[mode] = dataclasses.asdict(result)
            try:
                answer = await self._link.calls.call(
                    "report_evaluation",
                    name=request.candidate[:64],
                    evaluator_id=request.evaluator_id,
                    duration_s=_duration_s(request),
                    seed=self._seed,
                    max_abs_return=run.sessions.believable_return,
                    max_abs_reward=run.intake.max_abs_reward,
                    **results,
                )
            except NotFoundError:
                self._link.evaluations.finish(request.candidate)
                raise
            self._link.evaluations.finish(request.candidate)
            return pb.ReportEvaluationResponse(learner=run.header(), **answer)
        raise AssertionError("unreachable: translated aborts")

    async def _send_candidates(self, seat: Seat, context: _Context) -> None:
        """Sends each candidate that the seat gets, until the run ends."""
        sent: WaitingCandidate | None = None
        while not self._link.judged.is_set():
            candidate, run = seat.candidate, self._link.run
            if candidate is not None and candidate is not sent and run is not None:
                sent = candidate
                await write_in_time(
                    context,
                    pb.WatchCandidatesResponse(
                        learner=run.header(),
                        candidate=self._pack(candidate, run),
                        ticket=self._link.evaluations.ticket_of(seat.evaluator_id, candidate.name),
                    ),
                )
                continue
            await self._wait(seat)
        end = self._link.drain_reason
        await write_in_time(context, pb.WatchCandidatesResponse(learner=self._header(), end=end))

    def _header(self) -> header_pb2.LearnerHeader | None:
        return self._link.run.header() if self._link.run is not None else None

    async def _wait(self, seat: Seat) -> None:
        await seat.wait()
        if seat.is_over:
            raise StaleSessionError(
                f"evaluator {seat.evaluator_id} did not fetch the weights of its candidate for "
                f"{FETCH_LEASE_S:g} s, or reported nothing for {LEASE_S:g} s: its place was given "
                "to another"
            )

    def _pack(self, candidate: WaitingCandidate, run: OpenRun) -> pb.Candidate:
        return pb.Candidate(
            name=candidate.name,
            trained_steps=candidate.trained_steps,
            policy_version=candidate.policy_version,
            episode_count=self._config.evaluation.eval_interval_episodes,
            seed=self._seed,
            model=pack_model_spec(run.model),
            observation_leaves=map(pack_tensor_spec, run.environment.observation_leaves),
        )

    def _require_run(self, learner_run_id: int) -> OpenRun:
        """Returns the run.

        Raises:
          LearnerUnavailableError: there is no run yet, or it is ending.
          StaleSessionError: the request names another life of it.
        """
        run = self._link.run
        if run is None or self._link.judged.is_set():
            raise LearnerUnavailableError("the learner evaluates nothing now")
        if learner_run_id != run.learner_run_id:
            raise StaleSessionError("the candidate is of another life of the learner")
        return run


def evaluation_seed(run_seed: int) -> int:
    """Returns the seed of all evaluations of a run, in [0, 2**31), from a stream of its own."""
    sequence = np.random.SeedSequence(run_seed, spawn_key=(_SEED_KEY,))
    return int(sequence.generate_state(1, np.uint32)[0] >> np.uint32(1))


def _read_weights(folder: Path) -> tuple[bytes, int]:
    data = read_group(folder, "weights")
    return data, digest_of_snapshot(data)


def _chunks_of(data: bytes) -> Iterator[pb.GetCandidateWeightsResponse]:
    for start in range(0, len(data), WEIGHTS_CHUNK_BYTES):
        yield pb.GetCandidateWeightsResponse(chunk=data[start : start + WEIGHTS_CHUNK_BYTES])


def _unknown(candidate: str) -> NotFoundError:
    return NotFoundError(f"no candidate '{printable(candidate, 64)}': it was replaced or judged")


def _duration_s(request: pb.ReportEvaluationRequest) -> float:
    duration_s = request.duration.seconds + request.duration.nanos / 1e9
    if not math.isfinite(duration_s) or not 0.0 <= duration_s <= _MAX_DURATION_S:
        raise InvalidRequestError(f"duration: expected seconds of at least 0, got {duration_s!r}")
    return duration_s
