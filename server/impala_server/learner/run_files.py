"""Reads the checkpoint and specification of an existing run at the learner's start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from impala_common.config import TrainConfig
from impala_common.errors import CheckpointError
from impala_common.run.checkpoints import Checkpoint, CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_common.spec.specs import EnvironmentSpec

Array = np.ndarray[Any, Any]


def load_run_files(
    run: RunDirectory, store: CheckpointStore, config: TrainConfig
) -> tuple[EnvironmentSpec | None, Checkpoint | None]:
    """Returns (environment, newest good checkpoint), or Nones for a new run.

    Raises:
      CheckpointError: specs.json or all checkpoints are damaged.
    """
    if run.specs_path.exists():
        return _load_environment(run.specs_path), store.load_newest() if store.names() else None
    if config.environment.specs_file:
        return _load_environment(Path(config.environment.specs_file)), None
    return None, None


def load_initial_weights(config: TrainConfig) -> dict[str, Array] | None:
    """Returns the initial weights of a new run, or None.

    Raises:
      CheckpointError: init_model_path does not name an undamaged checkpoint.
    """
    if not config.job.init_model_path:
        return None
    path = Path(config.job.init_model_path)
    return CheckpointStore(path.parent).load(path.name).tensors["weights"]


def _load_environment(path: Path) -> EnvironmentSpec:
    try:
        return EnvironmentSpec.from_json(json.loads(path.read_text())["environment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: expected specs.json as a learner writes it ({error})"
        ) from error
