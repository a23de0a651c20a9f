"""Where a run ends: its configured total_steps, or what an administrator set in its place.

Reads a checkpoint's manifest. Knows neither torch nor gRPC: commands ask before they start
anything.
"""

from __future__ import annotations

from impala_common.errors import CheckpointError
from impala_common.run.checkpoints import CheckpointStore, CheckpointSummary


def describe_newest(store: CheckpointStore) -> CheckpointSummary | None:
    """Returns the newest checkpoint with a readable manifest; None if there is none."""
    try:
        names = store.names()
    except CheckpointError:
        return None
    for name in reversed(names):
        try:
            return store.describe(name)
        except CheckpointError:
            continue  # the learner reports the damage
    return None


def find_total_steps(configured: int, newest: CheckpointSummary | None) -> int:
    """Returns the agent steps at which a run ends that goes on from `newest`.

    Args:
      configured: total_steps of the settings; one that was changed since the parameter was set
        holds, as for every parameter.
      newest: the run's newest checkpoint; None: it has none.
    """
    parameters = newest.state.get("parameters") if newest is not None else None
    entry = parameters.get("total_steps") if isinstance(parameters, dict) else None
    if not isinstance(entry, dict) or entry.get("configured") != configured:
        return configured
    value = entry.get("value")
    return value if isinstance(value, int) else configured
