"""The table of Prometheus series and the metrics they show.

Read by the exporter (`prometheus`); docs/operations.md, deploy/prometheus and
the dashboard are checked against it. Base units, `_total` for counters, labels with a few fixed
values.
"""

from __future__ import annotations

from typing import NamedTuple

from impala_common.run import metrics
from impala_server.findings import FINDINGS

STATES = ("STARTING", "RUNNING", "PAUSED", "DRAINING", "STOPPED")
"""States a learner can be in, as `impala_state` labels them."""


class Series(NamedTuple):
    """Prometheus name and help of one number of the learner.

    A name that ends in `_total` is a counter; all others are gauges.
    """

    metric: str
    name: str
    help: str
    label: str = ""
    value: str = ""


SERIES = (
    Series(metrics.STEPS, "impala_trained_steps_total", "Agent steps trained on."),
    Series(metrics.UPDATES, "impala_updates_total", "Batches trained on."),
    Series(
        metrics.OPTIMIZER_STEPS,
        "impala_optimizer_steps_total",
        "Optimizer steps, several of an update where batches are used again.",
    ),
    Series(metrics.TIME_S, "impala_training_seconds_total", "Seconds of training, all lives."),
    Series(metrics.EPISODES, "impala_episodes_total", "Finished episodes."),
    Series(
        metrics.SKIPPED_UPDATES,
        "impala_skipped_updates_total",
        "Updates skipped for a loss or gradient that was not finite.",
    ),
    Series(
        metrics.ENVIRONMENT_FAILURES,
        "impala_environment_failures_total",
        "Times an actor dropped its unfinished unrolls because its environment failed.",
    ),
    Series(metrics.STEPS_PER_S, "impala_steps_per_second", "Agent steps trained on per second."),
    Series(metrics.UPDATES_PER_S, "impala_updates_per_second", "Updates per second."),
    *(
        Series(
            metric,
            "impala_episode_return",
            "Return of recent episodes, never clipped.",
            "statistic",
            statistic,
        )
        for metric, statistic in (
            (metrics.RETURN_MEAN, "mean"),
            (metrics.RETURN_STD, "std"),
            (metrics.RETURN_MIN, "min"),
            (metrics.RETURN_MAX, "max"),
        )
    ),
    *(
        Series(
            metric,
            "impala_evaluation_return",
            "Newest evaluation with frozen weights: mean return, by how actions are chosen.",
            "mode",
            mode,
        )
        for metric, mode in (
            (metrics.EVALUATION_RETURN_MEAN, "sampled"),
            (metrics.GREEDY_RETURN_MEAN, "greedy"),
        )
    ),
    *(
        Series(
            metric,
            "impala_evaluation_return_error",
            "Standard error of that mean.",
            "mode",
            mode,
        )
        for metric, mode in (
            (metrics.EVALUATION_ERROR, "sampled"),
            (metrics.GREEDY_ERROR, "greedy"),
        )
    ),
    Series("evaluation_steps", "impala_evaluation_steps", "Agent steps of what was evaluated."),
    Series(metrics.EVALUATION_S, "impala_evaluation_seconds", "Time the newest evaluation took."),
    Series(metrics.EVALUATION_BEST, "impala_best_return", "Mean return of the checkpoint `best`."),
    Series(
        metrics.EVALUATION_BEST_STEPS, "impala_best_steps", "Agent steps of the checkpoint `best`."
    ),
    Series(
        metrics.STEPS_SINCE_EPISODE,
        "impala_steps_since_episode",
        "Agent steps trained on since the last episode ended.",
    ),
    *(
        Series(
            metric,
            "impala_finding",
            "1 while this is wrong with learning (docs/troubleshooting.md), else 0.",
            "finding",
            name,
        )
        for name, metric in FINDINGS.items()
    ),
    Series(metrics.LENGTH_MEAN, "impala_episode_length_steps", "Mean length of recent episodes."),
    *(
        Series(metric, "impala_loss", "Loss, mean over recent updates.", "kind", kind)
        for metric, kind in (
            (metrics.LOSS_TOTAL, "total"),
            (metrics.LOSS_PG, "policy_gradient"),
            (metrics.LOSS_BASELINE, "baseline"),
            (metrics.LOSS_ENTROPY, "entropy"),
        )
    ),
    *(
        Series(
            metric,
            "impala_policy_lag_updates",
            "Updates between the weights of an unroll and those it trained.",
            "statistic",
            statistic,
        )
        for metric, statistic in (
            (metrics.POLICY_LAG_MEAN, "mean"),
            (metrics.POLICY_LAG_MAX, "max"),
        )
    ),
    Series(metrics.RHO_MEAN, "impala_rho_mean_ratio", "Mean importance ratio, unclipped."),
    Series(metrics.RHO_CLIPPED_FRACTION, "impala_rho_clipped_ratio", "Share of ratios clipped."),
    Series(metrics.RHO_HIGH_SHARE, "impala_rho_high_ratio", "Share of ratios above 1.1."),
    Series(
        metrics.EFFECTIVE_SAMPLE_SHARE,
        "impala_effective_sample_ratio",
        "Effective sample size of the importance ratios, over the number of rows.",
    ),
    Series(metrics.KL, "impala_kl_nats", "KL divergence, behaviour to target policy."),
    Series(metrics.KL_LAST, "impala_kl_last_pass_nats", "The same, over the last pass."),
    Series(metrics.ENTROPY, "impala_entropy_nats", "Mean entropy of the target policy."),
    Series(metrics.GRAD_NORM, "impala_gradient_norm", "Global gradient norm before clipping."),
    *(
        Series(metric, "impala_loss_gradient_norm", "Gradient norm by its loss.", "kind", kind)
        for metric, kind in (
            (metrics.POLICY_GRAD_NORM, "policy"),
            (metrics.VALUE_GRAD_NORM, "value"),
        )
    ),
    Series(
        metrics.CLIPPED_STEP_SHARE,
        "impala_clipped_steps_ratio",
        "Share of optimizer steps whose gradient was scaled down.",
    ),
    Series(metrics.PASSES, "impala_passes", "Mean number of passes over a batch."),
    Series(
        metrics.OPTIMIZER_STEPS_PER_STEP,
        "impala_optimizer_steps_per_step",
        "Optimizer steps for each agent step trained on.",
    ),
    Series(
        metrics.SAMPLE_AGE_MEAN,
        "impala_sample_age_updates",
        "Updates between the weights of an unroll and those it trained, replayed ones included.",
    ),
    Series(metrics.LEARNING_RATE, "impala_learning_rate", "Learning rate of the last update."),
    Series(metrics.VALUE_MEAN, "impala_value_mean", "Mean of the value head's outputs."),
    Series(metrics.VALUE_SCALE, "impala_value_scale", "Root mean square of value estimates."),
    Series(metrics.RETURN_SCALE, "impala_return_scale", "Root mean square of value targets."),
    Series(metrics.ADVANTAGE_STD, "impala_advantage_std", "Deviation of advantages."),
    Series(
        metrics.ADVANTAGE_ABS_MEAN, "impala_advantage_abs_mean", "Mean absolute policy advantage."
    ),
    Series(
        metrics.EXPLAINED_VARIANCE,
        "impala_explained_variance_ratio",
        "1 is a perfect value head, 0 a constant one.",
    ),
    Series(metrics.POLICY_VERSION, "impala_policy_version", "Version of the newest weights."),
    Series(metrics.UPDATE_S, "impala_update_seconds", "Mean time of one update."),
    Series(metrics.LOAD_S, "impala_batch_load_seconds", "Mean time to make a batch of a slot."),
    Series(metrics.BATCH_WAIT_S, "impala_batch_wait_seconds", "Mean wait for a full slot."),
    Series(metrics.QUEUE_FILL, "impala_storage_fill_ratio", "Share of rollout storage in use."),
    Series(metrics.ACTORS_CONNECTED, "impala_actors_connected", "Actors with an open stream."),
    *(
        Series(
            metric,
            "impala_unrolls_total",
            "Unrolls that came, by what became of them.",
            "outcome",
            outcome,
        )
        for metric, outcome in (
            (metrics.UNROLLS_ACCEPTED, "accepted"),
            (metrics.UNROLLS_DUPLICATE, "duplicate"),
            (metrics.UNROLLS_STALE, "stale"),
            (metrics.UNROLLS_INVALID, "invalid"),
            (metrics.UNROLLS_CAPACITY, "capacity"),
        )
    ),
    Series(metrics.UNROLLS_TRAINED, "impala_unrolls_trained_total", "Unrolls trained on."),
    Series(metrics.UNROLLS_QUEUED, "impala_unrolls_queued", "Unrolls accepted, now in storage."),
    Series(
        metrics.UNROLLS_DROPPED,
        "impala_unrolls_dropped_total",
        "Unrolls accepted and not trained on.",
    ),
    *(
        Series(
            metric,
            "impala_actor_step_seconds",
            "Actors' time per agent step and environment slot, by where it goes.",
            "activity",
            activity,
        )
        for metric, activity in (
            (metrics.ENVIRONMENT_S, "environment"),
            (metrics.INFERENCE_S, "inference"),
            (metrics.BLOCKED_S, "blocked"),
        )
    ),
    Series(
        metrics.RSS_BYTES,
        "impala_learner_resident_memory_bytes",
        "Resident memory of the learner process.",
    ),
    Series(
        "last_checkpoint_age_s",
        "impala_last_checkpoint_age_seconds",
        "Seconds since the last checkpoint was durable.",
    ),
    Series(
        "checkpoint_failures",
        "impala_checkpoint_failures_total",
        "Checkpoints that could not be written.",
    ),
    Series(
        "checkpoints_unreadable",
        "impala_checkpoints_unreadable_total",
        "Checkpoints among them that could not have been read again.",
    ),
)
"""Numbers of the learner's status, by their names in the status and in Prometheus."""

OWN = {
    "impala_build_info": "Versions, as labels; always 1.",
    "impala_state": "1 for the state the learner is in, 0 for the others.",
    "impala_bottleneck": "1 for the part of the machine that bounds the run, 0 for the others.",
    "impala_draining": "1 while no more unrolls are taken.",
    "impala_insecure_bind": "1 if other machines reach the learner without TLS or without a token.",
    "impala_status_age_seconds": "Seconds since the learner process was last heard of.",
    "impala_max_actors": "Actors that may take part at a time.",
}
"""Gauges that are not numbers of the status."""


def exported_names() -> dict[str, str]:
    """Returns help by name of everything exported under `impala_`."""
    return {series.name: series.help for series in SERIES} | OWN
