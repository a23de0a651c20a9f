"""LearnerStats: sums between two lines of metrics.

Learner threads add under the update lock, and the controller collects under it. Losses stay on the
device until then, so that adding them does not wait for the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from impala_common.run import metrics
from impala_server.learner.batch_source import TakenBatch
from impala_server.learner.update_result import UPDATE_VALUES, GradientNorms, UpdateResult
from impala_server.storage.handoff import FinishedEpisode

_EPISODE_WINDOW = 100
_RATE_MARKS = 10

_METRIC_OF = {
    "total_loss": metrics.LOSS_TOTAL,
    "pg_loss": metrics.LOSS_PG,
    "baseline_loss": metrics.LOSS_BASELINE,
    "entropy_loss": metrics.LOSS_ENTROPY,
    "mean_rho": metrics.RHO_MEAN,
    "fraction_clipped": metrics.RHO_CLIPPED_FRACTION,
    "kl": metrics.KL,
    "entropy": metrics.ENTROPY,
    "mean_value": metrics.VALUE_MEAN,
    "mean_advantage_abs": metrics.ADVANTAGE_ABS_MEAN,
    "explained_variance": metrics.EXPLAINED_VARIANCE,
    "high_rho_share": metrics.RHO_HIGH_SHARE,
    "effective_sample_share": metrics.EFFECTIVE_SAMPLE_SHARE,
    "value_scale": metrics.VALUE_SCALE,
    "return_scale": metrics.RETURN_SCALE,
    "advantage_std": metrics.ADVANTAGE_STD,
    "grad_norm": metrics.GRAD_NORM,
    "clipped_steps": metrics.CLIPPED_STEP_SHARE,
}


class LearnerStats:
    """Sums since the last collection, and the returns of the last 100 episodes."""

    def __init__(self, now_s: float) -> None:
        """Starts empty at `now_s`, by the clock that `collect` is given."""
        self._episode_returns: deque[float] = deque(maxlen=_EPISODE_WINDOW)
        self._episode_lengths: deque[int] = deque(maxlen=_EPISODE_WINDOW)
        self._steps_since_episode = 0
        self._marks: deque[tuple[float, int, int]] = deque([(now_s, 0, 0)], maxlen=_RATE_MARKS)
        self._clear()

    def _clear(self) -> None:
        self._value_sum: Tensor | None = None
        self._last_kl_sum: Tensor | None = None
        self._gradient_norms: list[GradientNorms] = []
        self._num_optimizer_steps = 0
        self._num_passes = 0
        self._age_sum = 0.0
        self._num_updates = 0
        self._num_steps = self._num_own_steps = 0
        self._lag_sum = 0.0
        self._lag_max = 0
        self._wait_s = 0.0
        self._load_s = 0.0
        self._update_s = 0.0
        self._actor_s = np.zeros(3)

    def add(
        self,
        taken: TakenBatch,
        result: UpdateResult,
        version: int,
        update_s: float,
        num_steps: int,
    ) -> None:
        """Adds one update, made in `update_s` seconds when the learner was at `version`.

        `num_steps` are the agent steps of the update, those of other learner ranks included.
        """
        values = result.values
        self._value_sum = values if self._value_sum is None else self._value_sum + values
        last_kl = result.last_kl
        self._last_kl_sum = last_kl if self._last_kl_sum is None else self._last_kl_sum + last_kl
        if result.gradient_norms is not None:
            self._gradient_norms.append(result.gradient_norms)
        self._num_updates += 1
        self._num_optimizer_steps += result.num_steps
        self._num_passes += result.num_passes
        self._num_steps += num_steps
        self._num_own_steps += taken.batch.num_steps
        ages = version - taken.batch.policy_versions
        lags = ages[: taken.batch.num_unrolls]
        self._age_sum += float(ages.mean())
        self._lag_sum += float(lags.mean())
        self._lag_max = max(self._lag_max, int(lags.max()))
        self._wait_s += taken.wait_s
        self._load_s += taken.load_s
        self._update_s += update_s
        self._actor_s += taken.actor_seconds
        self._steps_since_episode += num_steps
        self.add_episodes(taken.episodes)

    def add_episodes(self, episodes: Sequence[FinishedEpisode]) -> None:
        """Adds finished episodes: those of a batch, or those that other learner ranks tell of."""
        for episode in episodes:
            self._steps_since_episode = 0
            self._episode_returns.append(episode.episode_return)
            self._episode_lengths.append(episode.num_steps)

    def collect(self, now_s: float) -> dict[str, float]:
        """Returns the metrics since the last call and starts the next interval.

        Rates are over the last ten calls: a large batch may take longer than one interval.
        """
        updates, steps = self._num_updates, self._num_steps
        before_s, steps_before, updates_before = self._marks[0]
        _, last_steps, last_updates = self._marks[-1]
        self._marks.append((now_s, last_steps + steps, last_updates + updates))
        passed_s = max(now_s - before_s, 1e-3)
        collected: dict[str, float] = {
            metrics.STEPS_PER_S: (last_steps + steps - steps_before) / passed_s,
            metrics.UPDATES_PER_S: (last_updates + updates - updates_before) / passed_s,
            metrics.STEPS_SINCE_EPISODE: self._steps_since_episode,
        }
        if self._episode_returns:
            returns = np.array(self._episode_returns)
            collected |= {
                metrics.RETURN_MEAN: float(returns.mean()),
                metrics.RETURN_STD: float(returns.std()),
                metrics.RETURN_MIN: float(returns.min()),
                metrics.RETURN_MAX: float(returns.max()),
                metrics.LENGTH_MEAN: float(np.mean(self._episode_lengths)),
            }
        if self._value_sum is not None:
            means = (self._value_sum / updates).tolist()
            named = dict(zip(UPDATE_VALUES, means, strict=True))
            collected |= {_METRIC_OF[name]: value for name, value in named.items()}
            per_step = self._actor_s / max(self._num_own_steps, 1)
            assert self._last_kl_sum is not None
            collected |= {
                metrics.KL_LAST: float(self._last_kl_sum) / updates,
                metrics.PASSES: self._num_passes / updates,
                metrics.OPTIMIZER_STEPS_PER_STEP: self._num_optimizer_steps / max(steps, 1),
                metrics.SAMPLE_AGE_MEAN: self._age_sum / updates,
                metrics.POLICY_LAG_MEAN: self._lag_sum / updates,
                metrics.POLICY_LAG_MAX: self._lag_max,
                metrics.BATCH_WAIT_S: self._wait_s / updates,
                metrics.LOAD_S: self._load_s / updates,
                metrics.UPDATE_S: self._update_s / updates,
                metrics.ENVIRONMENT_S: float(per_step[0]),
                metrics.INFERENCE_S: float(per_step[1]),
                metrics.BLOCKED_S: float(per_step[2]),
            }
        if norms := self._gradient_norms:
            collected |= {
                metrics.POLICY_GRAD_NORM: float(sum(one.policy for one in norms)) / len(norms),
                metrics.VALUE_GRAD_NORM: float(sum(one.value for one in norms)) / len(norms),
            }
        self._clear()
        return collected
