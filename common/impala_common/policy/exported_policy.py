"""ExportedPolicy: loads what `impala-eval --export` wrote, as a policy that acts.

Reads policy.json and policy.safetensors; every byte is verified, and neither file has code. For
programs that have this package, but no learner and no run's folder.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from impala_common.config.sections import EnvironmentConfig
from impala_common.config.toml_io import unpack_config
from impala_common.config.train import TrainConfig
from impala_common.errors import CheckpointError, ConfigError
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model
from impala_common.models.weights import restore_weights
from impala_common.policy.policy import Policy
from impala_common.run.checkpoint_manifest import MAX_MANIFEST_BYTES, read_bytes, read_tensors
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

FORMAT = "impala-rl policy"
FORMAT_VERSION = 1
DESCRIPTION_FILE = "policy.json"
WEIGHTS_FILE = "policy.safetensors"
ONNX_FILE = "policy.onnx"


@dataclasses.dataclass(frozen=True, slots=True)
class ExportedPolicy:
    """A policy with frozen weights.

    Attributes:
      env: id of the environment it was trained on.
      environment: the environment's specification.
      environment_config: training's settings of it, for
        `impala_actor.environments.factory.make_environment`.
      model_spec: the network.
      model: the network with its weights, on the CPU.
      step: agent steps trained.
    """

    env: str
    environment: EnvironmentSpec
    environment_config: EnvironmentConfig
    model_spec: ModelSpec
    model: AgentModel
    step: int

    def make_policy(self, num_slots: int, seed: int = 0) -> Policy:
        """Returns the policy for `num_slots` environment slots."""
        return Policy(self.model, self.environment.action, num_slots, seed)


def load_exported_policy(folder: str | Path, own_model: str = "") -> ExportedPolicy:
    """Loads the export in `folder`.

    Args:
      folder: output folder of `impala-eval --export`.
      own_model: name of the network, "module:Class", if it is an own network: a file alone never
        decides which code is imported.

    Raises:
      CheckpointError: the export is missing, damaged, foreign or of another version.
      ConfigError: it has an own network other than `own_model`.
      ModelError: the network cannot be made in this process.
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
    if model_spec.is_own and model_spec.name != own_model:
        raise ConfigError(
            "own_model",
            own_model,
            repr(model_spec.name),
            f"{path} names this network, and what a file says is not imported by itself",
        )
    model = make_model(model_spec, environment, seed=0)
    restore_weights(model, weights, folder.name, model_spec.name)
    return ExportedPolicy(env, environment, config.environment, model_spec, model, step)
