"""Totals of a run, for metrics lines and the status.

Called by the controller on its own thread. `impala_server.learner.stats` has the sums since the
last line.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping

from impala_common.run import metrics
from impala_server.learner.training_state import TrainingState


def make_totals(
    state: TrainingState, counts: Mapping[str, float], life_s: float
) -> dict[str, float]:
    """Returns metrics by name.

    Args:
      state: the training state with the counters.
      counts: the front end's counts, by its names.
      life_s: seconds of training in this life of the learner.
    """
    counters = state.counters
    return {
        metrics.STEPS: counters.trained_steps,
        metrics.TIME_S: counters.wall_time_s + life_s,
        metrics.UPDATES: counters.policy_version,
        metrics.POLICY_VERSION: counters.policy_version,
        metrics.OPTIMIZER_STEPS: counters.optimizer_steps,
        metrics.LEARNING_RATE: state.learning_rate,
        metrics.EPISODES: counters.num_episodes,
        metrics.SKIPPED_UPDATES: counters.skipped_updates,
        metrics.QUEUE_FILL: counts.get("storage_fill", 0.0),
        metrics.ACTORS_CONNECTED: counts.get("actors_connected", 0),
        metrics.UNROLLS_ACCEPTED: counts.get("accepted", 0),
        metrics.UNROLLS_DUPLICATE: counts.get("duplicate", 0),
        metrics.UNROLLS_STALE: counts.get("stale", 0),
        metrics.UNROLLS_INVALID: counts.get("invalid", 0),
        metrics.UNROLLS_CAPACITY: counts.get("capacity", 0),
        metrics.UNROLLS_TRAINED: counts.get("trained", 0),
        metrics.UNROLLS_DROPPED: counts.get("dropped", 0),
        metrics.UNROLLS_QUEUED: counts.get("queued", 0),
        metrics.ENVIRONMENT_FAILURES: counts.get("environment_failures", 0),
        metrics.RSS_BYTES: _resident_bytes(),
    }


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
