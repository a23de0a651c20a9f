"""evaluate: the mean return of a policy with frozen weights, with its interval.

Every environment slot plays the same fixed number of episodes. Taking the episodes that finish
first would favour short ones, which in most games have low returns (or high ones, if speed is the
goal). Called by
`impala_actor.eval_cli`; runs on the calling thread; knows nothing of torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import EnvironmentAdapter, Observations
from impala_actor.environments.episode_statistics import EpisodeRecord, EpisodeTracker
from impala_actor.environments.rebuilt import RebuiltEnvironment, UnrollAbandonedError
from impala_common.errors import ConfigError, EnvironmentFailedError

DEFAULT_MAX_EPISODE_STEPS = 108_000
"""Agent steps after which an episode is cut: some policies never end one."""
MAX_ENDLESS_STEPS = 10_000
"""The same while no episode has ended in any slot: the environment may have no ends."""

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom. The standard library has none,
# and scipy would add 100 MB to every actor.
_T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_Z_QUANTILE = 1.959964


class ChosenActions(Protocol):
    """The part of a decision that the evaluation uses."""

    @property
    def actions(self) -> NDArray[Any]:
        """int64 or float32 [N, ...]: flat actions as ActionSpec.tensor says."""


class EvaluablePolicy(Protocol):
    """The part of `impala_common.policy.policy.Policy` that the evaluation uses."""

    def act(
        self, observations: Observations, is_first: NDArray[np.bool_], is_greedy: bool = False
    ) -> ChosenActions:
        """Chooses actions; resets recurrent state where `is_first` before it is used."""

    def observe(self, rewards: NDArray[np.float32], is_first: NDArray[np.bool_], /) -> None:
        """Takes the rewards and ends that followed the actions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of an evaluation; returns are those of whole games, never clipped.

    Attributes:
      num_episodes: episodes played, the same number in every slot.
      return_mean: mean return.
      standard_error: standard deviation / sqrt(num_episodes); None for a single episode.
      confidence_low: lower end of the 95 % confidence interval of the mean (Student's t).
      confidence_high: its upper end.
      return_min: smallest return.
      return_max: largest return.
      length_mean: mean length in agent steps.
      length_min: shortest length.
      length_max: longest length.
      num_cut: episodes cut for their length, counted with what they had; 0 in a sound evaluation.
      num_lost: episodes that ended with an exception of the environment, not counted but played
        again; long episodes are lost more often.
      is_greedy: whether the most probable action was taken, or one was drawn.
      seed: seed of environments and draws.
      returns: all returns, slot by slot.
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
    num_lost: int
    is_greedy: bool
    seed: int
    returns: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Returns a JSON-serialisable form."""
        return dataclasses.asdict(self)


def evaluate(
    policy: EvaluablePolicy,
    environment: EnvironmentAdapter | RebuiltEnvironment,
    num_episodes: int,
    seed: int,
    *,
    is_greedy: bool = False,
    max_episode_steps: int = 0,
) -> Evaluation:
    """Plays ceil(num_episodes / num_slots) episodes in each slot.

    Args:
      policy: a policy with as many slots; is_first resets its state.
      environment: stays open; is reset with `seed`. A RebuiltEnvironment is made anew when its code
        raised an error, and goes on.
      num_episodes: least total number of episodes.
      seed: of the environment; the policy has its own.
      is_greedy: take the most probable action in place of drawing one.
      max_episode_steps: when an episode gets this long, all episodes under way are cut, and the
        evaluation ends; 0: DEFAULT_MAX_EPISODE_STEPS, or MAX_ENDLESS_STEPS while none has ended.

    Raises:
      ConfigError: num_episodes is below 1.
      EnvironmentFailedError: the environment failed, too often where it is made anew.
    """
    if num_episodes < 1:
        raise ConfigError("episodes", num_episodes, "at least 1")
    if isinstance(environment, EnvironmentAdapter):
        given = environment
        environment = RebuiltEnvironment(lambda: given, max_failures=1)
    num_slots = environment.num_slots
    share = -(-num_episodes // num_slots)
    finished: list[list[EpisodeRecord]] = [[] for _ in range(num_slots)]
    is_short = np.ones(num_slots, np.bool_)
    tracker = EpisodeTracker(num_slots)
    observations, num_lost = environment.start(seed), 0
    is_first = np.ones(num_slots, np.bool_)
    limit = max_episode_steps or MAX_ENDLESS_STEPS
    while is_short.any() and tracker.num_steps[is_short].max() < limit:
        actions = policy.act(observations, is_first, is_greedy=is_greedy).actions
        try:
            step = environment.step(actions)
        except UnrollAbandonedError:
            num_lost += int(is_short.sum())
            tracker = EpisodeTracker(num_slots)
            observations, is_first = environment.start(seed), np.ones(num_slots, np.bool_)
            policy.observe(np.zeros(num_slots, np.float32), is_first)
            continue
        policy.observe(step.rewards, step.is_first)
        for record in tracker.update(step):
            environment.note_progress()
            if is_short[record.environment_slot]:
                records = finished[record.environment_slot]
                records.append(record)
                is_short[record.environment_slot] = len(records) < share
                limit = max_episode_steps or DEFAULT_MAX_EPISODE_STEPS
        observations, is_first = step.observations, step.is_first
    cut = [record for record in tracker.unfinished() if is_short[record.environment_slot]]
    played = [record for records in finished for record in records]
    return make_evaluation(played, cut, num_lost=num_lost, is_greedy=is_greedy, seed=seed)


def make_evaluation(
    finished: Sequence[EpisodeRecord],
    cut: Sequence[EpisodeRecord] = (),
    *,
    num_lost: int = 0,
    is_greedy: bool,
    seed: int,
) -> Evaluation:
    """Sums up episodes; at least one is needed."""
    records = [*finished, *cut]
    returns = np.array([record.episode_return for record in records], np.float64)
    lengths = [record.num_steps for record in records]
    standard_error = low = high = None
    with np.errstate(invalid="ignore", over="ignore"):  # of returns that are not finite
        mean = float(returns.mean())
        if len(records) > 1:
            standard_error = float(returns.std(ddof=1)) / math.sqrt(len(records))
            margin = compute_t_quantile(len(records) - 1) * standard_error
            low, high = mean - margin, mean + margin
    return Evaluation(
        num_episodes=len(records),
        return_mean=mean,
        standard_error=standard_error,
        confidence_low=low,
        confidence_high=high,
        return_min=float(returns.min()),
        return_max=float(returns.max()),
        length_mean=sum(lengths) / len(lengths),
        length_min=min(lengths),
        length_max=max(lengths),
        num_cut=len(cut),
        num_lost=num_lost,
        is_greedy=is_greedy,
        seed=seed,
        returns=tuple(returns.tolist()),
    )


def require_finite(evaluation: Evaluation) -> None:
    """Raises EnvironmentFailedError for a result that no file can hold, as JSON has no NaN."""
    numbers = (*evaluation.returns, evaluation.confidence_low, evaluation.confidence_high)
    for number in numbers:
        if number is not None and not math.isfinite(number):
            raise EnvironmentFailedError(
                f"the evaluation is no result: a return is {number}, but rewards must be finite "
                "and sum up to finite returns; look at the environment's rewards and wrappers"
            )


def compute_t_quantile(degrees_of_freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's t, to about three decimals."""
    if degrees_of_freedom <= len(_T_QUANTILES):
        return _T_QUANTILES[degrees_of_freedom - 1]
    # Cornish-Fisher expansion around the normal quantile z (Abramowitz & Stegun 26.7.5).
    z, v = _Z_QUANTILE, degrees_of_freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3
