"""export_policy: writes a run's policy as safetensors, JSON and ONNX.

Writes policy.safetensors (weights), policy.json (everything else) and, with the
extra `onnx`, policy.onnx. None of them is or holds code. Called by
`impala_actor.eval_cli`; read back by `impala_common.policy.exported_policy`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from impala_actor.evaluation.output_places import EXPORT_RULE
from impala_actor.evaluation.policy_evaluation import Evaluation
from impala_common.config.sections import EnvironmentConfig
from impala_common.config.toml_io import NONE
from impala_common.errors import ConfigError
from impala_common.policy.exported_policy import (
    DESCRIPTION_FILE,
    FORMAT,
    FORMAT_VERSION,
    ONNX_FILE,
    WEIGHTS_FILE,
)
from impala_common.policy.frozen_run import FrozenRun
from impala_common.policy.onnx_graph import (
    EXTRA,
    POLICY_LOGITS,
    VALUE,
    PolicyInterface,
    has_onnx,
    make_interface,
    make_onnx,
)
from impala_common.process.installation import way_to_install
from impala_common.run.run_directory import reading, write_bytes_atomic, write_json_atomic
from impala_common.spec.specs import ModelSpec, TensorSpec

_PACKAGES = ("impala-rl", "torch", "numpy", "safetensors", "gymnasium", "onnx", "onnxscript")


class Export(NamedTuple):
    """Result of an export.

    Attributes:
      paths: the files written.
      notes: remarks for the user, such as a missing file.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def validate_export_folder(folder: Path) -> None:
    """Raises ConfigError unless `folder` is missing, empty, or holds an earlier export only."""
    rule = EXPORT_RULE
    with reading("--export", folder, rule):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise ConfigError("--export", str(folder), rule, "it is a file")
        names = {path.name for path in folder.iterdir()}
    others = sorted(names - {DESCRIPTION_FILE, WEIGHTS_FILE, ONNX_FILE})
    if others:
        raise ConfigError("--export", str(folder), rule, f"it holds {', '.join(others[:3])}")
    if DESCRIPTION_FILE in names:
        try:
            written = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            is_ours = isinstance(written, dict) and written.get("format") == FORMAT
        except (OSError, ValueError):
            is_ours = False
        if not is_ours:
            raise ConfigError("--export", str(folder), rule, f"its {DESCRIPTION_FILE} is not ours")


def export_policy(
    run: FrozenRun,
    folder: Path,
    *,
    evaluation: Evaluation | None = None,
    with_onnx: bool = True,
) -> Export:
    """Writes a run's policy into `folder`; policy.json last, so that it stands for a whole.

    Args:
      run: the run to export.
      folder: made if missing.
      evaluation: its evaluation, if there is one.
      with_onnx: whether to write policy.onnx; without the extra a note says that it is missing.

    Raises:
      ConfigError: the folder holds something else or cannot be written to, the network
        cannot be traced, or ONNX and torch disagree. Nothing is written then.
    """
    validate_export_folder(folder)
    interface = make_interface(run.model, run.environment, _uses_previous_step(run.model_spec))
    weights = {
        name: np.ascontiguousarray(tensor.detach().cpu().numpy())
        for name, tensor in run.model.state_dict().items()
    }
    files = {WEIGHTS_FILE: safetensors.numpy.save(weights)}
    notes: list[str] = []
    if with_onnx and has_onnx():
        files[ONNX_FILE] = make_onnx(run.model, run.environment, interface)
    elif with_onnx:
        notes.append(
            f"{ONNX_FILE} was left out, its libraries are missing: {way_to_install(EXTRA)}"
        )
    description = _describe(run, interface, files, evaluation)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (DESCRIPTION_FILE, WEIGHTS_FILE, ONNX_FILE):
            (folder / name).unlink(missing_ok=True)
        for name, data in files.items():
            write_bytes_atomic(folder / name, data)
        write_json_atomic(folder / DESCRIPTION_FILE, description)
    except OSError as error:
        raise ConfigError("--export", str(folder), "a folder to write to", str(error)) from error
    return Export(tuple(folder / name for name in (*files, DESCRIPTION_FILE)), tuple(notes))


def pack_environment_config(config: EnvironmentConfig) -> dict[str, Any]:  # Any: JSON
    """Returns the settings of training's environments, in the form of config.toml."""
    values = dataclasses.asdict(dataclasses.replace(config, specs_file=""))
    return {name: NONE if value is None else value for name, value in values.items()}


def _describe(
    run: FrozenRun,
    interface: PolicyInterface,
    files: dict[str, bytes],
    evaluation: Evaluation | None,
) -> dict[str, Any]:  # Any: JSON
    """Returns the contents of policy.json."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "run": run.path.resolve().name,
        "checkpoint": run.checkpoint,
        "step": run.step,
        "env": run.env,
        "evaluation": None if evaluation is None else evaluation.to_json(),
        "environment": run.environment.to_json(),
        "environment_config": pack_environment_config(run.environment_config),
        "model": dataclasses.asdict(run.model_spec),
        "inputs": [_describe_tensor(spec, lambda shape: ["N", *shape]) for spec in interface.inputs]
        + [_describe_tensor(spec, _with_slots) for spec in interface.states],
        "outputs": [
            {"name": POLICY_LOGITS, "shape": ["N", interface.num_logits], "dtype": "float32"},
            {"name": VALUE, "shape": ["N"], "dtype": "float32"},
        ]
        + [
            _describe_tensor(dataclasses.replace(spec, name=f"next_{spec.name}"), _with_slots)
            for spec in interface.states
        ],
        "states": [spec.name for spec in interface.states],
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
        "versions": _find_versions(),
    }


def _describe_tensor(
    spec: TensorSpec, add_slots: Callable[[tuple[int, ...]], list[int | str]]
) -> dict[str, Any]:  # Any: JSON
    return {"name": spec.name, "shape": add_slots(spec.shape), "dtype": spec.dtype}


def _with_slots(shape: tuple[int, ...]) -> list[int | str]:
    return [shape[0], "N", *shape[1:]]


def _find_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _uses_previous_step(spec: ModelSpec) -> bool:
    """Returns whether the network may look at the previous action and reward."""
    return spec.use_previous_action_and_reward or spec.is_own  # an own network always gets both
