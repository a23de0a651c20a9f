"""Loads policies: what `impala-eval --export` wrote, or a run's folder.

Of an exported policy it reads policy.json and either policy.safetensors (torch) or policy.onnx
(onnxruntime, without torch); every byte is verified and none of it is code. Such a policy needs
neither a learner nor the folder of the run. Importing this file loads no torch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from impala_common.config.toml_io import unpack_config
from impala_common.config.train import TrainConfig
from impala_common.errors import CheckpointError, ConfigError
from impala_common.policy.frozen_policy import (
    FrozenPolicy,
    NetworkPolicy,
    require_own_model_named,
)
from impala_common.policy.graph_policy import GraphPolicy, make_session
from impala_common.process.installation import is_installed
from impala_common.run.checkpoint_manifest import (
    MAX_MANIFEST_BYTES,
    read_bytes,
    read_tensors,
    read_verified,
)
from impala_common.run.run_directory import reading
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec

FORMAT = "impala-rl policy"
FORMAT_VERSION = 1
DESCRIPTION_FILE = "policy.json"
WEIGHTS_FILE = "policy.safetensors"
ONNX_FILE = "policy.onnx"


Runtime = Literal["auto", "torch", "onnx"]
"""auto: torch where it is installed, else onnx."""


def load_policy(
    folder: str | Path,
    checkpoint: str | None = None,
    own_model: str = "",
    runtime: Runtime = "auto",
) -> FrozenPolicy:
    """Loads the policy of a run, or one that `impala-eval --export` wrote.

    Args:
      folder: of a run, which may still be training, or of an exported policy.
      checkpoint: of a run: "best", or another name below checkpoints/; None: the newest
        undamaged one.
      own_model: name of the network, "module:Class", if it is user-supplied: a file never
        decides by itself what is imported. A graph needs no network.
      runtime: "torch"; "onnx": the exported graph in onnxruntime, without torch; "auto": torch if
        it is installed, else onnx.

    Raises:
      CheckpointError: there is nothing to load, or it is damaged, foreign or of another version.
      ConfigError: the folder holds neither; the network is user-supplied, and not `own_model`;
        `checkpoint` is given for an exported policy; or a run is to be loaded without torch.
      MissingExtraError: the graph is asked for, and onnxruntime is not installed.
      ModelError: the network cannot be made here.
    """
    folder = Path(folder)
    is_graph = runtime == "onnx" or (runtime == "auto" and not is_installed("torch"))
    if not holds_exported_policy(folder):
        if is_graph:
            raise ConfigError(
                "folder",
                str(folder),
                "an exported policy where torch is not used",
                "impala-eval RUN --export DIR writes one",
            )
        from impala_common.policy.frozen_run import load_frozen_run  # loads torch

        return load_frozen_run(folder, checkpoint, own_model)
    if checkpoint is not None:
        raise ConfigError(
            "checkpoint", checkpoint, "None", f"{folder} is an exported policy, which has no others"
        )
    return load_graph(folder) if is_graph else load_exported_policy(folder, own_model)


def holds_exported_policy(folder: Path) -> bool:
    """Returns whether `folder` has an exported policy; raises ConfigError if it is closed to us."""
    with reading("folder", folder, "a folder with a policy"):
        return (folder / DESCRIPTION_FILE).exists()


def load_exported_policy(folder: str | Path, own_model: str = "") -> NetworkPolicy:
    """Loads what was exported into `folder`, to run in torch; arguments and errors: `load_policy`.

    Raises:
      CheckpointError: there is nothing, or it is damaged, foreign or of another version.
    """
    from impala_common.models.registry import make_model  # loads torch
    from impala_common.models.weights import restore_weights

    folder = Path(folder)
    about = read_description(folder)
    with _reading(folder):
        file = about["files"][WEIGHTS_FILE]
        weights = read_tensors(folder / WEIGHTS_FILE, file["sha256"], file["bytes"])
        facts = _read_facts(about)
    require_own_model_named(facts["model_spec"], own_model, folder / DESCRIPTION_FILE)
    model = make_model(facts["model_spec"], facts["environment"], seed=0)
    restore_weights(model, weights, folder.name, facts["model_spec"].name)
    return NetworkPolicy(**facts, model=model)


def load_graph(folder: str | Path) -> GraphPolicy:
    """Loads the graph that was exported into `folder`, to run in onnxruntime; see `load_policy`.

    Raises:
      CheckpointError: there is no graph, or it is damaged, foreign or of another version.
      MissingExtraError: onnxruntime is not installed.
    """
    folder = Path(folder)
    about = read_description(folder)
    with _reading(folder):
        if ONNX_FILE not in about["files"]:
            raise CheckpointError(
                f"{folder} has no {ONNX_FILE}: export it anew with the extra onnx, or install torch"
            )
        file = about["files"][ONNX_FILE]
        graph = read_verified(folder / ONNX_FILE, file["sha256"], file["bytes"])
        states = tuple(
            TensorSpec(name, (int(shape[0]), *map(int, shape[2:])), "float32")
            for name, shape in (
                (tensor["name"], tensor["shape"])
                for tensor in about["inputs"]
                if tensor["name"] in about["states"]
            )
        )
        facts = _read_facts(about)
    return GraphPolicy(**facts, session=make_session(graph, folder / ONNX_FILE), states=states)


def read_description(folder: Path) -> dict[str, Any]:  # Any: JSON
    """Returns the content of a policy.json.

    Raises:
      CheckpointError: there is none, or it is foreign or of another version.
    """
    path = folder / DESCRIPTION_FILE
    with _reading(folder):
        data = json.loads(read_bytes(path, MAX_MANIFEST_BYTES))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CheckpointError(f"{path} is foreign: expected format {FORMAT!r}")
        if data.get("version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {data.get('version')!r}: expected {FORMAT_VERSION}"
            )
        return data


def _read_facts(about: dict[str, Any]) -> dict[str, Any]:  # Any: JSON in, fields out
    """Returns the fields of a FrozenPolicy."""
    config = unpack_config({"environment": about["environment_config"]}, TrainConfig())
    return {
        "env": str(about["env"]),
        "environment": EnvironmentSpec.from_json(about["environment"]),
        "environment_config": config.environment,
        "model_spec": ModelSpec.from_json(about["model"]),
        "step": int(about["step"]),
    }


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turns errors of reading and of missing keys into CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{folder} holds no exported policy: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION_FILE} cannot be used: {error!r}") from error
