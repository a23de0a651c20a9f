"""Checkpoints of an agent on disk: one folder each, in the learner's format.

Used by `IMPALA.save`, `IMPALA.load` and before a training continues from the agent's state.
safetensors and JSON, without code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from impala_common.config import TrainConfig
from impala_common.config.checks import OBJECT_PREFIX
from impala_common.config.toml_io import dump_config
from impala_common.errors import CheckpointError, ConfigError, SpecMismatchError
from impala_common.run.checkpoint_manifest import MANIFEST, is_name
from impala_common.run.checkpoints import Checkpoint, CheckpointStore, Tensors
from impala_common.run.run_directory import (
    RunDirectory,
    reading,
    write_json_atomic,
    write_text_atomic,
)
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, validate_same_environment

_KEEP_ALL = 1_000_000
_MATTERS_NOT = ("init_method",)  # trained weights do not depend on their initialisation


def save_checkpoint(
    path: Path,
    step: int,
    tensors: Tensors,
    state: dict[str, Any],  # Any: JSON
) -> Path:
    """Writes a checkpoint as folder `path`, replaces an existing one, and returns the folder.

    Raises:
      ConfigError: `path` is not a checkpoint, or its name is invalid for one.
      CheckpointError: it could not be written; an existing checkpoint is untouched.
    """
    path = Path(os.path.abspath(path))
    if not is_name(path.name):
        raise ConfigError(
            "path", str(path), "a folder whose name has 1 to 64 letters, digits, '.', '_' or '-'"
        )
    rule = "a new folder, or one of an earlier save"
    with reading("path", path, rule):
        if path.exists() and not (path / MANIFEST).is_file():
            raise ConfigError("path", str(path), rule)
    staging = path.with_name(f".{path.name[:40]}-{secrets.token_hex(4)}")
    try:
        written = CheckpointStore(staging).save(step, tensors, state, name="new")
        if path.exists():
            os.rename(path, staging / "old")
        try:
            os.rename(written, path)
        except BaseException:
            with contextlib.suppress(OSError):  # there was none
                os.rename(staging / "old", path)
            raise
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return path


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Returns the checkpoint at `path`: a checkpoint's folder, or a run's (its newest one).

    Raises:
      CheckpointError: there is none, or it is damaged.
      ConfigError: it is closed to this user.
    """
    path = Path(os.path.abspath(path))
    with reading("path", path, "a folder that save() wrote, or that of a run"):
        is_checkpoint = (path / MANIFEST).is_file()
    if is_checkpoint:
        return CheckpointStore(path.parent).load(path.name)
    for folder in (RunDirectory(path).checkpoints_path, path):
        store = CheckpointStore(folder)
        if store.names():
            return store.load_newest()
    raise CheckpointError(
        f"{path} holds no checkpoint: expected a folder that save() wrote, or that of a run"
    )


def validate_fitting(
    checkpoint: Checkpoint, environment: EnvironmentSpec, model: ModelSpec
) -> None:
    """Raises CheckpointError, with the difference, unless spaces and network are these."""
    try:
        saved_environment = EnvironmentSpec.from_json(checkpoint.state["environment"])
        saved_model = dataclasses.asdict(ModelSpec.from_json(checkpoint.state["model"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.name} was not written by a learner: {error!r}"
        ) from error
    try:
        validate_same_environment(environment, saved_environment)
    except SpecMismatchError as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.name} is of other spaces: {error} (expected: this agent's; "
            "got: the checkpoint's)"
        ) from error
    differences = []
    for name, value in dataclasses.asdict(model).items():
        saved = saved_model.get(name)
        saved = tuple(saved) if isinstance(saved, list) else saved
        are_objects = all(str(text).startswith(OBJECT_PREFIX) for text in (value, saved))
        if saved != value and name not in _MATTERS_NOT and not are_objects:
            differences.append(f"{name} is {saved!r} there and {value!r} here")
    if differences:
        raise CheckpointError(
            f"checkpoint {checkpoint.name} is of another network: {'; '.join(differences)}"
        )


def write_state(
    run: RunDirectory,
    config: TrainConfig,
    tensors: Tensors,
    state: dict[str, Any],  # Any: JSON
) -> Path:
    """Writes a state as the newest checkpoint of a run, from which its learner resumes.

    Renames checkpoints of later steps, so that none counts as newer.

    Args:
      run: its folder, whose lock the caller holds.
      config: all settings.
      tensors: in the form of `TrainingState.export`.
      state: likewise.

    Returns:
      The checkpoint's folder.
    """
    run.create()
    write_text_atomic(run.config_path, dump_config(config))
    write_json_atomic(
        run.specs_path, {"environment": state["environment"], "model": state["model"]}
    )
    store = CheckpointStore(run.checkpoints_path, keep=_KEEP_ALL)
    step = int(state["counters"]["trained_steps"])
    store.set_aside_after(step)
    return store.save(step, tensors, state)


def run_of(path: Path) -> Path | None:
    """Returns the run's folder if `path` is its newest checkpoint, else None."""
    path = Path(os.path.abspath(path))
    for run in (path, path.parent.parent):
        if RunDirectory(run).specs_path.is_file():
            return run
    return None
