"""Reads checkpoint and specification of a run at the learner's start; writes its specification."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from impala_common.config import TrainConfig
from impala_common.errors import CheckpointError
from impala_common.run.checkpoints import Checkpoint, CheckpointStore
from impala_common.run.run_directory import RunDirectory, write_json_atomic
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

Array = np.ndarray[Any, Any]


def load_run_files(
    run: RunDirectory, store: CheckpointStore, config: TrainConfig
) -> tuple[EnvironmentSpec | None, Checkpoint | None]:
    """Returns (environment, newest good checkpoint), or Nones for a new run.

    Raises:
      CheckpointError: specs.json or all checkpoints are damaged.
    """
    if run.holds_run():
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


def write_specs(run: RunDirectory, environment: EnvironmentSpec, model: ModelSpec) -> None:
    """Writes specs.json: the environment and the network that the run trains."""
    specs = {"environment": environment.to_json(), "model": dataclasses.asdict(model)}
    write_json_atomic(run.specs_path, specs)
