"""FrozenRun: the network of a run's folder with the weights of one checkpoint.

Reads config.toml, specs.json and a checkpoint. Only reads: the run may still be training. Used by
evaluation, videos and export; needs torch, so commands import it late.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from impala_common.config.toml_io import load_config
from impala_common.errors import CheckpointError, ConfigError
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model
from impala_common.models.weights import restore_weights
from impala_common.policy.frozen_policy import NetworkPolicy, require_own_model_named
from impala_common.run.checkpoints import Checkpoint, CheckpointStore
from impala_common.run.run_directory import RunDirectory, reading
from impala_common.spec.specs import EnvironmentSpec, ModelSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenRun(NetworkPolicy):
    """A run at one checkpoint, whose weights `model` has.

    Attributes:
      path: the run's folder, as it was given.
      checkpoint: name of the checkpoint.
    """

    path: Path
    checkpoint: str


def load_frozen_run(
    path: Path, checkpoint_name: str | None = None, own_model: str | None = None
) -> FrozenRun:
    """Loads a run's network.

    Args:
      path: the run's folder.
      checkpoint_name: None: the newest undamaged one.
      own_model: the only user-supplied network that may be imported, "module:Class"; None:
        whichever the run names.

    Raises:
      ConfigError: no run there, or its network is user-supplied and not `own_model`.
      CheckpointError: no usable checkpoint.
    """
    run = RunDirectory(path)
    with reading("RUN", path):
        is_run, has_begun = run.config_path.is_file(), run.specs_path.exists()
    if not is_run:
        raise ConfigError("RUN", str(path), "a run's folder", f"there is no {run.config_path}")
    config = load_config(run.config_path).environment
    if not has_begun:
        raise CheckpointError(f"{path} has nothing to evaluate yet: it never began to train")
    environment, model_spec = read_specs(run.specs_path)
    if own_model is not None:
        require_own_model_named(model_spec, own_model, run.specs_path)
    store = CheckpointStore(run.checkpoints_path)
    checkpoint = store.load(checkpoint_name) if checkpoint_name else store.load_newest()
    model = make_model(model_spec, environment, seed=0)
    load_weights(model, checkpoint)
    return FrozenRun(
        env=config.env,
        environment=environment,
        environment_config=config,
        model_spec=model_spec,
        model=model,
        step=checkpoint.step,
        path=path,
        checkpoint=checkpoint.name,
    )


def read_specs(path: Path) -> tuple[EnvironmentSpec, ModelSpec]:
    """Reads a run's specs.json.

    Raises:
      CheckpointError: it is missing or invalid.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return EnvironmentSpec.from_json(data["environment"]), ModelSpec.from_json(data["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error!r}") from error


def load_weights(model: AgentModel, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights into the model.

    Raises:
      CheckpointError: they belong to another network.
    """
    if "weights" not in checkpoint.tensors:
        raise CheckpointError(f"checkpoint {checkpoint.name} has no weights")
    restore_weights(model, checkpoint.tensors["weights"], checkpoint.name, type(model).__name__)
