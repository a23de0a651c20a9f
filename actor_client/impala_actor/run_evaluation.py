"""evaluate_run: from the folder of a run to an Evaluation of its newest checkpoint.

Reads config.toml, specs.json and a checkpoint, makes network, environment and
policy, and plays. Only reads: the run may still be training. Called by
`impala_actor.eval_cli`, which imports this file late, as it needs torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from impala_actor.environments.factory import make_environment
from impala_actor.evaluator import Evaluation, evaluate
from impala_actor.policy import Policy
from impala_common.checkpoints import Checkpoint, CheckpointStore
from impala_common.config.toml_io import load_config
from impala_common.errors import CheckpointError, ConfigError
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model
from impala_common.run_directory import RunDirectory
from impala_common.specs import EnvironmentSpec, ModelSpec, validate_same_environment


@dataclasses.dataclass(frozen=True, slots=True)
class RunEvaluation:
    """An evaluation and what was evaluated.

    Attributes:
      run: the run's folder, as it was given.
      env: id of the environment it was judged on.
      checkpoint: name of the checkpoint.
      step: agent steps trained at the checkpoint.
      evaluation: the result.
    """

    run: str
    env: str
    checkpoint: str
    step: int
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Returns one flat JSON object."""
        head = {"run": self.run, "env": self.env, "checkpoint": self.checkpoint, "step": self.step}
        return head | self.evaluation.to_json()


def evaluate_run(
    path: Path,
    *,
    num_episodes: int,
    num_slots: int,
    seed: int,
    is_greedy: bool = False,
    env: str | None = None,
    checkpoint_name: str | None = None,
) -> RunEvaluation:
    """Judges one run by `num_episodes` or slightly more episodes with frozen weights.

    Args:
      path: the run's folder.
      num_episodes: see `impala_actor.evaluator.evaluate`.
      num_slots: environment slots; never more than episodes.
      seed: of environments and draws.
      is_greedy: take the most probable action in place of drawing one.
      env: judge on this environment, which must look the same; None: the run's.
      checkpoint_name: None: the newest undamaged one.

    Raises:
      ConfigError: no run there, or settings that cannot work.
      CheckpointError: no usable checkpoint.
      SpecMismatchError: the environment does not look like the one trained on.
    """
    run = RunDirectory(path)
    if not run.config_path.is_file():
        raise ConfigError("RUN", str(path), "a run's folder", f"there is no {run.config_path}")
    config = load_config(run.config_path).environment
    env = env or config.env
    if not run.specs_path.exists():
        raise CheckpointError(f"{path} has nothing to evaluate yet: it never began to train")
    environment_spec, model_spec = read_specs(run.specs_path)
    store = CheckpointStore(run.checkpoints_path)
    checkpoint = store.load(checkpoint_name) if checkpoint_name else store.load_newest()
    model = make_model(model_spec, environment_spec, seed=0)
    load_weights(model, checkpoint)

    num_slots = min(num_slots, num_episodes)
    # Judged by whole games, whatever ended an episode in training.
    config = dataclasses.replace(config, atari_episodic_life=False)
    with contextlib.closing(make_environment(env, num_slots, config)) as environment:
        validate_same_environment(environment_spec, environment.spec)
        policy = Policy(model, num_slots, seed)
        evaluation = evaluate(policy, environment, num_episodes, seed, is_greedy=is_greedy)
    return RunEvaluation(str(path), env, checkpoint.name, checkpoint.step, evaluation)


def read_specs(path: Path) -> tuple[EnvironmentSpec, ModelSpec]:
    """Reads a run's specs.json.

    Raises:
      CheckpointError: it is missing or not what it should be.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        model = dict(data["model"])
        model["hidden_sizes"] = tuple(model["hidden_sizes"])
        return EnvironmentSpec.from_json(data["environment"]), ModelSpec(**model)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error!r}") from error


def load_weights(model: AgentModel, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights into the model.

    Raises:
      CheckpointError: they are not the weights of this network.
    """
    if "weights" not in checkpoint.tensors:
        raise CheckpointError(f"checkpoint {checkpoint.name} has no weights")
    weights = {
        name: torch.from_numpy(array) for name, array in checkpoint.tensors["weights"].items()
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.name} is of another network: {error}"
        ) from error
