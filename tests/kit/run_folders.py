"""Hand-made folders of runs, for tests of their readers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from impala_actor.environments.factory import make_environment
from impala_common.config.sections import EnvironmentConfig, ModelConfig
from impala_common.config.toml_io import dump_config
from impala_common.config.train import TrainConfig
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory

SMALL_MEMORY = ModelConfig(recurrence="lstm", hidden_dim=8)


def make_run_folder(
    path: Path, env: str, model: ModelConfig = SMALL_MEMORY, **options: Any
) -> Path:
    """Makes a run on `env` at step 4000 with fresh weights; `options` are of EnvironmentConfig."""
    directory = RunDirectory(path)
    directory.create()
    config = TrainConfig(environment=EnvironmentConfig(env=env, **options))
    directory.config_path.write_text(dump_config(config))
    spec = make_environment(env, 1, config.environment).spec
    model_spec = resolve_model_spec(model, spec)
    specs = {"environment": spec.to_json(), "model": dataclasses.asdict(model_spec)}
    directory.specs_path.write_text(json.dumps(specs))
    weights = make_model(model_spec, spec, seed=1).state_dict()
    tensors = {"weights": {name: value.numpy() for name, value in weights.items()}}
    CheckpointStore(directory.checkpoints_path).save(4000, tensors, {})
    metrics = {"steps": 4000, "time_s": 2.0, "episode/return_mean": 0.25}
    directory.metrics_path.write_text(json.dumps(metrics) + "\n")
    return directory.path
