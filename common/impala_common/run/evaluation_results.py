"""EvaluationResult: statistics of one evaluation, as evaluators report it.

Pure values: knows neither torch nor gRPC. Received results are checked here, before they are
compared, recorded or stored.
"""

from __future__ import annotations

import dataclasses
import math

from impala_common.errors import InvalidRequestError

MAX_EPISODES = 1_000_000
_TOLERANCE = 1e-6  # of means, which are rounded


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Result of one evaluation in one mode, as reported and recorded.

    Attributes:
      num_episodes: episodes played.
      return_mean: mean return, never clipped.
      standard_error: of the mean; None for a single episode.
      confidence_low: lower end of the 95 % confidence interval of the mean.
      confidence_high: its upper end.
      return_min: smallest return.
      return_max: largest return.
      length_mean: mean length in agent steps.
      length_min: shortest length.
      length_max: longest length.
      num_cut: episodes cut for their length.
    """

    num_episodes: int
    return_mean: float
    standard_error: float | None
    confidence_low: float | None
    confidence_high: float | None
    return_min: float
    return_max: float
    length_mean: float
    length_min: int
    length_max: int
    num_cut: int


def validate_result(mode: str, result: EvaluationResult, min_episodes: int = 1) -> None:
    """Raises InvalidRequestError unless the numbers are possible results of an evaluation.

    Args:
      mode: "sampled" or "greedy", for messages.
      result: the reported result.
      min_episodes: requested episodes.
    """

    def require(name: str, is_so: bool, rule: str) -> None:
        if not is_so:
            raise InvalidRequestError(
                f"{mode}.{name}: expected {rule}, got {getattr(result, name, None)!r}"
            )

    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        require(field.name, value is None or math.isfinite(value), "a finite number")
    require(
        "num_episodes",
        min_episodes <= result.num_episodes <= MAX_EPISODES,
        f"{min_episodes} to {MAX_EPISODES} episodes",
    )
    require("num_cut", 0 <= result.num_cut <= result.num_episodes, "0 to num_episodes")
    low, high = result.return_min, result.return_max
    require("return_mean", _is_ordered(low, result.return_mean, high), f"{low!r} to {high!r}")
    require("length_min", result.length_min >= 1, "at least 1")
    require(
        "length_mean",
        _is_ordered(result.length_min, result.length_mean, result.length_max),
        f"{result.length_min} to {result.length_max}",
    )
    interval = (result.standard_error, result.confidence_low, result.confidence_high)
    is_known = result.num_episodes > 1
    if not is_known or None in interval:
        require("standard_error", not is_known and interval == (None,) * 3, "known for 2 episodes")
        return
    error, low, high = interval  # type: ignore[assignment]  # none of them is None
    require("standard_error", error is not None and error >= 0.0, "at least 0")
    require(
        "confidence_low", _is_ordered(low, result.return_mean, high), "an interval around the mean"
    )


def _is_ordered(low: float, middle: float, high: float) -> bool:
    margin = _TOLERANCE * (1.0 + abs(middle))
    return low <= high and low - margin <= middle <= high + margin
