"""Packs and unpacks evaluation results. No grpc, no torch."""

from __future__ import annotations

from impala_common.run.evaluation_results import EvaluationResult
from impala_rl.v1 import evaluation_pb2 as pb


def pack_result(result: EvaluationResult) -> pb.EvaluationResult:
    """Returns `result` as a message."""
    return pb.EvaluationResult(
        episode_count=result.num_episodes,
        return_mean=result.return_mean,
        standard_error=result.standard_error,
        confidence_low=result.confidence_low,
        confidence_high=result.confidence_high,
        return_min=result.return_min,
        return_max=result.return_max,
        length_mean=result.length_mean,
        length_min=result.length_min,
        length_max=result.length_max,
        cut_count=result.num_cut,
    )


def unpack_result(message: pb.EvaluationResult) -> EvaluationResult:
    """Returns the result in `message`, not yet validated: see `validate_result`."""

    def optional(name: str) -> float | None:
        return getattr(message, name) if message.HasField(name) else None

    return EvaluationResult(
        num_episodes=message.episode_count,
        return_mean=message.return_mean,
        standard_error=optional("standard_error"),
        confidence_low=optional("confidence_low"),
        confidence_high=optional("confidence_high"),
        return_min=message.return_min,
        return_max=message.return_max,
        length_mean=message.length_mean,
        length_min=message.length_min,
        length_max=message.length_max,
        num_cut=message.cut_count,
    )
