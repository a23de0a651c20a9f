"""Names of all metrics: metrics.jsonl, TensorBoard, progress, status.

The learner's parts fill a table of these, the metrics writer and the progress
display read it. Words are the glossary's; `_s` is seconds, rates are per second
of wall clock. A metric without a value is missing or NaN.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STEPS = "steps"
"""Agent steps trained on; padding rows do not count. The x axis of everything."""
TIME_S = "time_s"
"""Seconds of training, over all lives of the learner."""
UPDATES = "updates"
"""Updates made: batches trained on."""

STEPS_PER_S = "throughput/steps_per_s"
"""Agent steps trained on per second, since the last line."""
UPDATES_PER_S = "throughput/updates_per_s"
"""Updates per second, since the last line."""

RETURN_MEAN = "episode/return_mean"
"""Mean return of recent finished episodes, as the environment scores them, never clipped."""
RETURN_STD = "episode/return_std"
"""Standard deviation of recent returns."""
RETURN_MIN = "episode/return_min"
"""Smallest recent return."""
RETURN_MAX = "episode/return_max"
"""Largest recent return."""
LENGTH_MEAN = "episode/length_mean"
"""Mean length of recent episodes, in agent steps."""
EPISODES = "episode/count"
"""Episodes finished since the run began."""

STEPS_SINCE_EPISODE = "episode/steps_since_last"
"""Agent steps trained on since the last episode ended; where they are many, the returns above are
old."""

LOSS_TOTAL = "loss/total"
"""The sum of the next three."""
LOSS_PG = "loss/pg"
"""Policy-gradient loss."""
LOSS_BASELINE = "loss/baseline"
"""Value loss, times baseline_cost."""
LOSS_ENTROPY = "loss/entropy"
"""Negative entropy, times entropy_cost. With entropy_floor, entropy counts up to that floor once
more, times entropy_floor_cost."""

POLICY_LAG_MEAN = "learner/policy_lag_mean"
"""Updates between the weights an unroll was made with and those it trained, on average."""
POLICY_LAG_MAX = "learner/policy_lag_max"
"""Largest of those."""
RHO_MEAN = "learner/rho_mean"
"""Mean importance ratio pi/mu, unclipped."""
RHO_CLIPPED_FRACTION = "learner/rho_clipped_fraction"
"""Share of ratios above clip_rho_threshold."""
RHO_HIGH_SHARE = "learner/rho_high_share"
"""Share of ratios above 1.1."""
EFFECTIVE_SAMPLE_SHARE = "learner/effective_sample_share"
"""Effective sample size of the ratios, over the number of rows: 1 on-policy; a small one means that
few rows decide an update."""
KL = "learner/kl"
"""Mean KL divergence from behaviour policy to target policy, in nats. As all statistics of ratios,
values and advantages: of each optimizer step of an update where its part makes its own V-trace
targets, else of the last step of each pass."""
KL_LAST = "learner/kl_last_pass"
"""The same, of the last pass of an update."""
ENTROPY = "learner/entropy"
"""Mean entropy of the target policy, in nats."""
GRAD_NORM = "learner/grad_norm"
"""Global gradient norm, before clipping."""
POLICY_GRAD_NORM = "learner/policy_grad_norm"
"""Gradient norm of policy and entropy losses alone; of every hundredth update."""
VALUE_GRAD_NORM = "learner/value_grad_norm"
"""Gradient norm of the value loss alone; likewise."""
CLIPPED_STEP_SHARE = "learner/clipped_step_share"
"""Share of optimizer steps whose gradient was scaled down to max_grad_norm."""
PASSES = "learner/passes"
"""Mean number of passes over a batch."""
OPTIMIZER_STEPS = "learner/optimizer_steps"
"""Optimizer steps since the run began: several of an update where batches are used again."""
OPTIMIZER_STEPS_PER_STEP = "learner/optimizer_steps_per_step"
"""Optimizer steps for each agent step trained on."""
SAMPLE_AGE_MEAN = "learner/sample_age_mean"
"""Updates between the weights an unroll was made with and those it trained, over fresh and replayed
unrolls; policy_lag is of fresh ones."""
LEARNING_RATE = "learner/learning_rate"
"""Learning rate of the last update."""
VALUE_MEAN = "learner/value_mean"
"""Mean of the value head's outputs."""
VALUE_SCALE = "learner/value_scale"
"""Root of the mean square of the value head's outputs."""
RETURN_SCALE = "learner/return_scale"
"""Root of the mean square of the value targets vs."""
ADVANTAGE_ABS_MEAN = "learner/advantage_abs_mean"
"""Mean absolute advantage that the policy loss uses."""
ADVANTAGE_STD = "learner/advantage_std"
"""Standard deviation of advantages, before ratios and normalisation."""
EXPLAINED_VARIANCE = "learner/explained_variance"
"""1 - Var(vs - values) / Var(vs): 1 is a perfect value head, 0 a constant one."""
POLICY_VERSION = "learner/policy_version"
"""Version of the weights published last."""
REWARD_STD = "learner/reward_std"
"""What rewards are divided by: the running deviation of their discounted sums."""
UPDATE_S = "learner/update_s"
"""Mean time of one update."""
LOAD_S = "learner/load_s"
"""Mean time a learner thread took to make a batch on the device of a full slot."""
SKIPPED_UPDATES = "learner/skipped_updates"
"""Updates skipped for a loss or gradient that was not finite, since the run began."""

QUEUE_FILL = "queue/fill"
"""Share of rollout storage in use, 0 to 1."""
BATCH_WAIT_S = "queue/batch_wait_s"
"""Mean time a learner thread waited for a batch: large means actors are the bottleneck."""

ACTORS_CONNECTED = "actors/connected"
"""Actors with a session."""
UNROLLS_ACCEPTED = "unrolls/accepted"
"""Unrolls taken into rollout storage, since the server started; so are all counts below. Always
the sum of those trained, dropped and queued."""
UNROLLS_DUPLICATE = "unrolls/duplicate"
"""Unrolls that had been taken before."""
UNROLLS_STALE = "unrolls/stale"
"""Unrolls refused for their policy lag or their session."""
UNROLLS_INVALID = "unrolls/invalid"
"""Unrolls refused as damaged or outside their specification."""
UNROLLS_CAPACITY = "unrolls/capacity"
"""Unrolls refused because rollout storage stayed full."""
UNROLLS_TRAINED = "unrolls/trained"
"""Unrolls accepted and trained on."""
UNROLLS_DROPPED = "unrolls/dropped"
"""Unrolls accepted and not trained on: left when the run ended, or of a skipped update."""
UNROLLS_QUEUED = "unrolls/queued"
"""Unrolls accepted that are in rollout storage, being trained on included."""

ENVIRONMENT_FAILURES = "actor/environment_failures"
"""Times an actor dropped its unrolls in the making because its environment raised, or gave numbers
that are not finite, since the server started."""
ENVIRONMENT_S = "actor/environment_s"
"""Time per agent step and environment slot that actors spend in environments."""
INFERENCE_S = "actor/inference_s"
"""Time per agent step and environment slot that actors spend choosing actions."""
BLOCKED_S = "actor/blocked_s"
"""Time per agent step and environment slot that actors wait for the learner."""

EVALUATION_RETURN_MEAN = "evaluation/return_mean"
"""Mean return of episodes with frozen weights whose actions were drawn, over the steps at which the
weights were set aside; in a line of its own, as are all of `evaluation`."""
EVALUATION_ERROR = "evaluation/standard_error"
"""Standard error of that mean."""
EVALUATION_LOW = "evaluation/return_low"
"""Lower end of its 95 % confidence interval."""
EVALUATION_HIGH = "evaluation/return_high"
"""Upper end."""
EVALUATION_MIN = "evaluation/return_min"
"""Smallest of these returns."""
EVALUATION_MAX = "evaluation/return_max"
"""Largest of these returns."""
EVALUATION_LENGTH_MEAN = "evaluation/length_mean"
"""Mean length of these episodes, in agent steps."""
EVALUATION_EPISODES = "evaluation/episodes"
"""How many they were."""
EVALUATION_CUT = "evaluation/cut"
"""Of these, cut for their length; 0 in a sound evaluation."""
GREEDY_RETURN_MEAN = "evaluation_greedy/return_mean"
"""The same with the likeliest action in place of a drawn one; so are those below."""
GREEDY_ERROR = "evaluation_greedy/standard_error"
GREEDY_LOW = "evaluation_greedy/return_low"
GREEDY_HIGH = "evaluation_greedy/return_high"
GREEDY_MIN = "evaluation_greedy/return_min"
GREEDY_MAX = "evaluation_greedy/return_max"
GREEDY_LENGTH_MEAN = "evaluation_greedy/length_mean"
GREEDY_EPISODES = "evaluation_greedy/episodes"
GREEDY_CUT = "evaluation_greedy/cut"
EVALUATION_S = "evaluation/duration_s"
"""Time both took."""
EVALUATION_BEST = "evaluation/best_return_mean"
"""Mean return of the checkpoint `best`, drawn or greedy as eval_best_by says."""
EVALUATION_BEST_STEPS = "evaluation/best_steps"
"""Agent steps trained of the checkpoint `best`."""

FINDING_RETURN_FELL = "finding/return_fell"
"""1 while the mean return is far below its best, else 0; docs/troubleshooting.md, as are all of
`finding`."""
FINDING_ENTROPY = "finding/entropy_near_zero"
"""1 while the policy hardly varies its actions."""
FINDING_VALUES = "finding/values_explain_nothing"
"""1 while explained variance is near or below 0."""
FINDING_CLIPPED = "finding/gradient_always_clipped"
"""1 while nearly every gradient is scaled down by much."""
FINDING_SAMPLES = "finding/few_samples_count"
"""1 while the effective sample size is small."""
FINDING_KL = "finding/policy_changes_too_fast"
"""1 while the KL divergence of an update is large."""
FINDING_LAG = "finding/data_is_old"
"""1 while policy lag is high."""
FINDING_NO_EPISODE = "finding/no_episode_ended"
"""1 while no episode has ended for long."""
FINDING_LARGE = "finding/returns_too_large"
"""1 while value targets are far above 1."""
FINDING_SMALL = "finding/returns_near_zero"
"""1 while value targets are next to 0."""

RSS_BYTES = "memory/rss_bytes"
"""Resident memory of the learner process."""

BOTTLENECK_PARTS = (
    "no actors",
    "environment",
    "inference",
    "network",
    "batch assembly",
    "device",
)
"""Parts of a run that can be its bottleneck, as the status names them."""

UNROLLS_REJECTED = (UNROLLS_DUPLICATE, UNROLLS_STALE, UNROLLS_INVALID, UNROLLS_CAPACITY)
"""Counts of unrolls that were not taken."""

EXCHANGE_BYTES = "ranks/exchange_bytes"
"""Bytes that each learner rank sent for gradients since the last report, about a second."""

ALL_METRICS: tuple[str, ...] = tuple(
    value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str)
)
"""Every name above, in order."""


_LARGEST = 1e150
"""No number of a run is larger."""


def parameter_metric(name: str) -> str:
    """Returns the name under which a parameter stands in the line written when it was set."""
    return f"parameter/{name}"


def rank_metric(rank: int, name: str) -> str:
    """Returns the name of a number of one learner rank.

    Of `name`: update_s, seconds of the rank's own part of an update; exchange_s, seconds of an
    update in which it met the other ranks; queue_fill; actors; steps, of its own batches since the
    last report; held_up_s, seconds since the start in which the others waited for its batch.
    """
    return f"ranks/{rank}/{name}"


def read_metrics(path: Path) -> list[dict[str, Any]]:  # Any: JSON
    """Returns the lines of a metrics.jsonl; lines torn by a crash are left out.

    A value is a finite number or None, whatever else a line holds.
    """
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(line, dict):
            continue
        line = {name: value if _is_number(value) else None for name, value in line.items()}
        if isinstance(line.get(STEPS), int):
            lines.append(line)
    return lines


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_LARGEST < value < _LARGEST
