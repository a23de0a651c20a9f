"""Counters: steps, updates, unrolls and episodes of a run.

Owned by the learner, changed under its update lock, saved in every checkpoint.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from impala_common.errors import CheckpointError
from impala_common.run.checkpoints import Checkpoint


@dataclasses.dataclass(slots=True)
class Counters:
    """Totals of a run; saved in every checkpoint.

    Attributes:
      policy_version: updates: batches that optimizer steps were made on.
      trained_steps: agent steps trained on, padding rows not counted.
      trained_unrolls: unrolls trained on.
      dropped_unrolls: unrolls accepted and not trained on.
      skipped_updates: updates skipped for a non-finite loss or gradient.
      num_episodes: finished episodes reported.
      wall_time_s: seconds of training, over all lives of the learner.
      learner_life: number of earlier starts of the run's learner.
      optimizer_steps: optimizer steps; an update makes several if batches are used again.
    """

    policy_version: int = 0
    trained_steps: int = 0
    trained_unrolls: int = 0
    dropped_unrolls: int = 0
    skipped_updates: int = 0
    num_episodes: int = 0
    wall_time_s: float = 0.0
    learner_life: int = 0
    optimizer_steps: int = 0

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Counters:
        """Returns the counters that a checkpoint holds.

        Raises:
          TypeError: the fields differ.
        """
        # In checkpoints without this counter each update made one optimizer step.
        return cls(**{"optimizer_steps": saved.get("policy_version", 0), **saved})


_COUNTERS = {field.name for field in dataclasses.fields(Counters)}


def require_fitting(checkpoint: Checkpoint, state: dict[str, torch.Tensor]) -> None:
    """Raises CheckpointError unless the state is complete and fits the network's tensors."""
    weights = checkpoint.tensors.get("weights", {})
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    found = {name: array.shape for name, array in weights.items()}
    counters = checkpoint.state.get("counters")
    if (
        found != shapes
        or not isinstance(counters, dict)
        or not _COUNTERS - {"optimizer_steps"} <= set(counters) <= _COUNTERS
    ):
        raise CheckpointError(f"checkpoint {checkpoint.name} is not one of this run's network")
    for key, array in checkpoint.tensors.get("optimizer", {}).items():
        name = key.rpartition("|")[0]
        if name not in shapes or (array.ndim and array.shape != shapes[name]):
            raise CheckpointError(
                f"checkpoint {checkpoint.name}: optimizer state {key!r} fits no tensor"
            )
