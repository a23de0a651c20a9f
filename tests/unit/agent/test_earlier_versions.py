"""Agents and runs of versions that did not normalise integers go on as they began."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from running_server import make_config

from impala_agent.own_learner import OwnLearner
from impala_common.config.toml_io import dump_config
from impala_common.errors import CheckpointError, ConfigError
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.run.checkpoints import Checkpoint
from impala_common.run.run_directory import RunDirectory
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
from impala_server import start_checks
from impala_server.learner.run_files import write_specs

torch.set_num_threads(1)

CONFIG = make_config(model={"normalise_observations": True, "hidden_sizes": (8,)})


def make_environment(dtype: str) -> EnvironmentSpec:
    return EnvironmentSpec((TensorSpec("observation", (7, 7, 3), dtype),), ActionSpec.discrete(2))


def make_old_checkpoint(environment: EnvironmentSpec) -> Checkpoint:
    """Returns a checkpoint as earlier versions wrote it, of weights from another seed."""
    spec = resolve_model_spec(CONFIG.model, environment, normalise_integers=False)
    weights = make_model(spec, environment, seed=7).state_dict()
    new = OwnLearner(CONFIG, environment, None).state.export()
    model = dataclasses.asdict(spec)
    del model["normalise_integers"]
    tensors = {"weights": {name: value.numpy() for name, value in weights.items()}, "optimizer": {}}
    return Checkpoint("step-000000000000", 0, tensors, new.state | {"model": model})


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool"])
def test_agent_takes_a_checkpoint_of_an_earlier_version(dtype: str) -> None:
    """Planted: a field that is missing compared as a difference; the network made as a new one."""
    environment = make_environment(dtype)
    checkpoint = make_old_checkpoint(environment)

    restored = OwnLearner(CONFIG, environment, None).restored(checkpoint, None)

    for name, value in checkpoint.tensors["weights"].items():
        assert torch.equal(restored.network.state_dict()[name], torch.from_numpy(value))


def test_weights_of_an_earlier_version_do_not_fit_a_new_network() -> None:
    environment = make_environment("uint8")

    with pytest.raises(CheckpointError, match="normalise_integers is False there and True here"):
        OwnLearner(CONFIG, environment, None).load_weights(make_old_checkpoint(environment))


@pytest.mark.parametrize(("dtype", "is_old"), [("bool", False), ("uint8", False), ("uint8", True)])
def test_run_resumes_where_nothing_was_normalised(tmp_path: Path, dtype: str, is_old: bool) -> None:
    """Seen to fail before: the generic preset refused to resume a run of flags alone."""
    run = RunDirectory(tmp_path / "run")
    run.create()
    run.config_path.write_text(dump_config(CONFIG))
    environment = make_environment(dtype)
    spec = resolve_model_spec(CONFIG.model, environment, normalise_integers=not is_old)
    write_specs(run, environment, spec)

    start_checks._require_same_network(CONFIG, run)

    without = dataclasses.replace(CONFIG.model, normalise_observations=False)
    if spec.normalise_observations:
        with pytest.raises(ConfigError, match="--normalise-observations"):
            start_checks._require_same_network(dataclasses.replace(CONFIG, model=without), run)
