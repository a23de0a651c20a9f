"""What is wrong with learning, in words, and what to change: findings made from metrics.

The controller passes in each line of metrics, on its thread. Most findings are made
from the median of the last lines, so that one odd line is none. Thresholds are in one table,
`THRESHOLDS`. Knows neither gRPC nor torch.
docs/troubleshooting.md has a section for each finding.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from impala_common.run import metrics
from impala_common.spec.action_spec import ActionSpec
from impala_common.spec.specs import EnvironmentSpec

_NUM_LINES = 5  # lines whose median is judged
_JUDGED = (
    metrics.ENTROPY,
    metrics.EXPLAINED_VARIANCE,
    metrics.ADVANTAGE_STD,
    metrics.RETURN_SCALE,
    metrics.CLIPPED_STEP_SHARE,
    metrics.GRAD_NORM,
    metrics.EFFECTIVE_SAMPLE_SHARE,
    metrics.KL_LAST,
    metrics.POLICY_LAG_MEAN,
)


class Finding(NamedTuple):
    """One problem of learning.

    Attributes:
      name: one of FINDINGS.
      text: the measurement, and the setting to change.
    """

    name: str
    text: str

    def __str__(self) -> str:
        """Returns name and text on one line."""
        return f"{self.name.replace('_', ' ')}: {self.text}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits beyond which a number is a finding."""

    min_lines: int = 5
    """Lines with updates before the first finding."""
    min_updates: int = 50
    """Updates before the first finding: the first updates of a run are not typical."""
    min_episodes: int = 20
    """Episodes finished in this life of the learner before a mean return counts."""
    return_fell_share: float = 0.5
    """Lost share of the gain in return, from the lowest mean to the best."""
    entropy_share: float = 0.02
    """Entropy over that of uniform actions, below which a policy hardly varies its actions."""
    explained_variance: float = 0.05
    """Explained variance below which the value head does not help."""
    value_error_share: float = 0.1
    """Deviation of advantages over the scale of returns, below which explained variance is ignored:
    returns that hardly vary have no variance to explain."""
    clipped_share: float = 0.95
    """Share of optimizer steps with a clipped gradient."""
    clipped_ratio: float = 3.0
    """Gradient norm over max_grad_norm, with that share."""
    effective_sample_share: float = 0.3
    """Effective sample size of the importance ratios over the rows, below."""
    kl_nats: float = 0.1
    """KL divergence from behaviour to target policy in the last pass, above."""
    lag_updates: float = 20.0
    """Mean policy lag, above."""
    no_episode_steps: int = 200_000
    """Agent steps without the end of an episode."""
    max_return_scale: float = 300.0
    """Root mean square of value targets, above; after normalisation, scale and clipping."""
    min_return_scale: float = 1e-3
    """The same, below."""


THRESHOLDS = Thresholds()
"""The thresholds of every finding."""

FINDINGS: dict[str, str] = {
    "return_fell": metrics.FINDING_RETURN_FELL,
    "entropy_near_zero": metrics.FINDING_ENTROPY,
    "values_explain_nothing": metrics.FINDING_VALUES,
    "gradient_always_clipped": metrics.FINDING_CLIPPED,
    "few_samples_count": metrics.FINDING_SAMPLES,
    "policy_changes_too_fast": metrics.FINDING_KL,
    "data_is_old": metrics.FINDING_LAG,
    "no_episode_ended": metrics.FINDING_NO_EPISODE,
    "returns_too_large": metrics.FINDING_LARGE,
    "returns_near_zero": metrics.FINDING_SMALL,
}
"""The metric of each finding, by its name: 1 while it is made, else 0."""


class FindingsMaker:
    """The last metrics of one run, and its best return. Owned by the controller's thread."""

    def __init__(
        self,
        environment: EnvironmentSpec,
        num_episodes_before: int = 0,
        thresholds: Thresholds = THRESHOLDS,
    ) -> None:
        """Starts without data.

        Args:
          environment: what is learned; entropy is judged only without gaussian actions and masks.
          num_episodes_before: episodes of earlier lives, whose returns are not in the metrics.
          thresholds: the limits.
        """
        self._limits = thresholds
        is_masked = environment.action_mask is not None  # nobody knows how many choices are legal
        self._max_entropy = None if is_masked else _find_max_entropy(environment.action)
        self._latest: dict[str, deque[float]] = {name: deque(maxlen=_NUM_LINES) for name in _JUDGED}
        self._medians: dict[str, float] = {}
        self._num_lines = 0
        self._num_episodes = 0.0  # of this life
        self._last_count = float(num_episodes_before)
        self._worst: float | None = None
        self._best: float | None = None
        self._worst_before_best = 0.0
        self._std_at_best = 0.0
        self._has_no_reward = False

    def update(self, line: Mapping[str, float], max_grad_norm: float) -> tuple[Finding, ...]:
        """Adds a line of metrics; returns all findings that hold now.

        Args:
          line: metrics by name; one without updates changes no median.
          max_grad_norm: norm that gradients are clipped to; 0: no clipping.
        """
        if metrics.KL_LAST in line:
            self._num_lines += 1
            for name, latest in self._latest.items():
                value = line.get(name, math.nan)
                if math.isfinite(value):
                    latest.append(value)
                    self._medians[name] = statistics.median(latest)
        self._note_return(line)
        limits = self._limits
        is_early = (
            self._num_lines < limits.min_lines
            or line.get(metrics.UPDATES, 0.0) < limits.min_updates
        )
        if is_early:
            return ()
        found = (
            self._judge_return(line),
            self._judge_entropy(),
            self._judge_values(),
            self._judge_clipping(max_grad_norm),
            self._judge_samples(),
            self._judge_kl(),
            self._judge_lag(),
            self._judge_episodes(line),
            *self._judge_scale(),
        )
        return tuple(finding for finding in found if finding is not None)

    def _note_return(self, line: Mapping[str, float]) -> None:
        now = line.get(metrics.RETURN_MEAN, math.nan)
        count = line.get(metrics.EPISODES, self._last_count)
        self._num_episodes += max(0.0, count - self._last_count)  # a rollback lowers the count
        self._last_count = count
        if not math.isfinite(now) or self._num_episodes < self._limits.min_episodes:
            return
        if self._worst is None or now < self._worst:
            self._worst = now
        if self._best is None or now > self._best:
            self._best = now
            self._worst_before_best = self._worst
            self._std_at_best = line.get(metrics.RETURN_STD, 0.0)
        # A task solved at a return of 0 had others before.
        least, most = line.get(metrics.RETURN_MIN), line.get(metrics.RETURN_MAX)
        self._has_no_reward = self._worst == self._best == least == most == 0.0

    def _judge_return(self, line: Mapping[str, float]) -> Finding | None:
        now, best = line.get(metrics.RETURN_MEAN, math.nan), self._best
        if best is None or not math.isfinite(now):
            return None
        gained = best - self._worst_before_best
        is_noise = gained <= self._std_at_best or gained <= 0.0
        if is_noise or best - now < self._limits.return_fell_share * gained:
            return None
        return Finding(
            "return_fell",
            f"the mean return was {best:.4g} and is {now:.4g}. The checkpoint best holds the best "
            "policy that was evaluated; go back to it, or to an older one (impala-admin rollback), "
            "with a smaller learning_rate or kl_stop 0.02",
        )

    def _judge_entropy(self) -> Finding | None:
        entropy, most = self._medians.get(metrics.ENTROPY), self._max_entropy
        if entropy is None or most is None or entropy >= self._limits.entropy_share * most:
            return None
        return Finding(
            "entropy_near_zero",
            f"entropy is {entropy:.2g} of at most {most:.2g} nats: the policy hardly tries other "
            "actions. If the return is still too low, set entropy_floor 0.05, raise entropy_cost, "
            "lower learning_rate or reward_scale",
        )

    def _judge_values(self) -> Finding | None:
        explained = self._medians.get(metrics.EXPLAINED_VARIANCE)
        spread = self._medians.get(metrics.ADVANTAGE_STD, math.inf)
        scale = self._medians.get(metrics.RETURN_SCALE, 0.0)
        if explained is None or explained >= self._limits.explained_variance:
            return None
        if self._has_no_reward:  # values are what the optimizer's noise makes them
            return None
        if spread < self._limits.value_error_share * scale:
            return None
        return Finding(
            "values_explain_nothing",
            f"explained variance is {explained:.2g}: the value head predicts returns no better "
            "than their mean would. Set reward_normalisation return_std and "
            "normalise_observations, or raise baseline_cost or passes",
        )

    def _judge_clipping(self, max_grad_norm: float) -> Finding | None:
        share = self._medians.get(metrics.CLIPPED_STEP_SHARE, 0.0)
        norm = self._medians.get(metrics.GRAD_NORM, 0.0)
        limits = self._limits
        is_rare = share < limits.clipped_share or norm < limits.clipped_ratio * max_grad_norm
        if max_grad_norm <= 0.0 or is_rare:
            return None
        return Finding(
            "gradient_always_clipped",
            f"{share:.0%} of the gradients are scaled down to max_grad_norm {max_grad_norm:g}, "
            f"from a norm of {norm:.4g}: value loss and policy compete for that norm. Set "
            "loss_reduction mean or reward_normalisation return_std, or raise max_grad_norm",
        )

    def _judge_samples(self) -> Finding | None:
        share = self._medians.get(metrics.EFFECTIVE_SAMPLE_SHARE)
        if share is None or share >= self._limits.effective_sample_share:
            return None
        return Finding(
            "few_samples_count",
            f"the effective sample size is {share:.0%} of the rows: few rows decide an update. "
            "Lower num_storages, window or passes (fresher data), or learning_rate",
        )

    def _judge_kl(self) -> Finding | None:
        kl = self._medians.get(metrics.KL_LAST)
        if kl is None or kl <= self._limits.kl_nats:
            return None
        return Finding(
            "policy_changes_too_fast",
            f"the policy is {kl:.2g} nats from the one that acted. Lower learning_rate or passes, "
            "or set surrogate_clip 0.2 and kl_stop 0.02",
        )

    def _judge_lag(self) -> Finding | None:
        lag = self._medians.get(metrics.POLICY_LAG_MEAN)
        if lag is None or lag <= self._limits.lag_updates:
            return None
        return Finding(
            "data_is_old",
            f"unrolls are {lag:.0f} updates old when they are trained on. Lower num_storages, "
            "window or the number of actors, or raise batch_size",
        )

    def _judge_episodes(self, line: Mapping[str, float]) -> Finding | None:
        steps = line.get(metrics.STEPS_SINCE_EPISODE, 0.0)
        if steps < self._limits.no_episode_steps:
            return None
        return Finding(
            "no_episode_ended",
            f"no episode ended in the last {steps:,.0f} steps, so there is no recent return. Does "
            "the environment end its episodes? A time limit (gymnasium.wrappers.TimeLimit) makes "
            "sure of it",
        )

    def _judge_scale(self) -> tuple[Finding | None, ...]:
        if self._has_no_reward:
            return (
                Finding(
                    "returns_near_zero",
                    "every return so far is 0: no reward was found yet. Raise entropy_cost to "
                    "explore, train longer, or give a reward that leads the way",
                ),
            )
        scale = self._medians.get(metrics.RETURN_SCALE)
        if scale is None:
            return ()
        if scale > self._limits.max_return_scale:
            return (
                Finding(
                    "returns_too_large",
                    f"value targets are about {scale:,.4g}, and networks learn targets of about 1. "
                    "Set reward_normalisation return_std, or a smaller reward_scale",
                ),
            )
        if scale < self._limits.min_return_scale:
            return (
                Finding(
                    "returns_near_zero",
                    f"value targets are about {scale:.2g}: no reward was found yet, or rewards are "
                    "tiny. Set reward_normalisation return_std; raise entropy_cost to explore",
                ),
            )
        return ()


def _find_max_entropy(action: ActionSpec) -> float | None:
    """Returns the entropy of uniform actions in nats; None where a part is gaussian."""
    most = 0.0
    for part in action.parts:
        if part.kind == "gaussian":
            return None
        if part.kind == "bernoulli":
            most += part.num_components * math.log(2.0)
        else:
            most += sum(math.log(size) for size in part.sizes)
    return most or None


def as_metrics(findings: tuple[Finding, ...]) -> dict[str, float]:
    """Returns 1 for each finding that holds and 0 for each other, by the names of its metric."""
    names = {finding.name for finding in findings}
    return {metric: float(name in names) for name, metric in FINDINGS.items()}
