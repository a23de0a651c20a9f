"""Loads policies: what `impala-eval --export` wrote, or a run's folder.

Of an exported policy it reads policy.json and policy.safetensors; every byte is
verified and none of it is code. Such a policy needs neither a learner nor the
folder of the run.
"""

from __future__ import annotations

import json
from pathlib import Path

from impala_common.config.toml_io import unpack_config
from impala_common.config.train import TrainConfig
from impala_common.errors import CheckpointError, ConfigError
from impala_common.models.registry import make_model
from impala_common.models.weights import restore_weights
from impala_common.policy.frozen_policy import FrozenPolicy, require_own_model_named
from impala_common.policy.frozen_run import load_frozen_run
from impala_common.run.checkpoint_manifest import MAX_MANIFEST_BYTES, read_bytes, read_tensors
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

FORMAT = "impala-rl policy"
FORMAT_VERSION = 1
DESCRIPTION_FILE = "policy.json"
WEIGHTS_FILE = "policy.safetensors"
ONNX_FILE = "policy.onnx"


def load_policy(
    folder: str | Path, checkpoint: str | None = None, own_model: str = ""
) -> FrozenPolicy:
    """Loads the policy of a run, or one that `impala-eval --export` wrote.

    Args:
      folder: of a run, which may still be training, or of an exported policy.
      checkpoint: of a run: "best", or another name below checkpoints/; None: the newest
        undamaged one.
      own_model: name of the network, "module:Class", if it is user-supplied: a file never
        decides by itself what is imported.

    Raises:
      CheckpointError: there is nothing to load, or it is damaged, foreign or of another version.
      ConfigError: the folder holds neither; the network is user-supplied, and not `own_model`; or
        `checkpoint` is given for an exported policy.
      ModelError: the network cannot be made here.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION_FILE).exists():
        return load_frozen_run(folder, checkpoint, own_model)
    if checkpoint is not None:
        raise ConfigError(
            "checkpoint", checkpoint, "None", f"{folder} is an exported policy, which has no others"
        )
    return load_exported_policy(folder, own_model)


def load_exported_policy(folder: str | Path, own_model: str = "") -> FrozenPolicy:
    """Loads what was exported into `folder`.

    Args:
      folder: where `impala-eval --export` wrote to.
      own_model: name of the network, "module:Class", if it is user-supplied: a file never
        decides by itself what is imported.

    Raises:
      CheckpointError: there is nothing, or it is damaged, foreign or of another version.
      ConfigError: the network is user-supplied, and not `own_model`.
      ModelError: it cannot be made here.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION_FILE
    try:
        data = json.loads(read_bytes(path, MAX_MANIFEST_BYTES))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CheckpointError(f"{path} is foreign: expected format {FORMAT!r}")
        if data.get("version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {data.get('version')!r}: expected {FORMAT_VERSION}"
            )
        file = data["files"][WEIGHTS_FILE]
        weights = read_tensors(folder / WEIGHTS_FILE, file["sha256"], file["bytes"])
        environment = EnvironmentSpec.from_json(data["environment"])
        model_spec = ModelSpec.from_json(data["model"])
        config = unpack_config({"environment": data["environment_config"]}, TrainConfig())
        step = int(data["step"])
        env = str(data["env"])
    except OSError as error:
        raise CheckpointError(f"{folder} holds no exported policy: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error!r}") from error
    require_own_model_named(model_spec, own_model, path)
    model = make_model(model_spec, environment, seed=0)
    restore_weights(model, weights, folder.name, model_spec.name)
    return FrozenPolicy(
        env=env,
        environment=environment,
        environment_config=config.environment,
        model_spec=model_spec,
        model=model,
        step=step,
    )
