"""Checks of a command's settings against this machine and the run, before anything is started.

Called by impala-train and impala-server before the run's folder is made. Takes milliseconds: torch
and environments are not imported. The processes themselves find the remaining errors.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from impala_common.config import SecurityConfig, TrainConfig
from impala_common.config.checks import OBJECT_PREFIX, is_own_model
from impala_common.config.toml_io import load_config
from impala_common.errors import ConfigError, ImpalaError, MissingExtraError
from impala_common.process.cuda_probe import require_device
from impala_common.process.installation import is_installed
from impala_common.process.own_modules import find_class_problem
from impala_common.rpc.tokens import read_token
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory, reading
from impala_common.run.run_end import describe_newest, find_total_steps
from impala_common.spec.specs import EnvironmentSpec

_NETWORK_SETTINGS = (
    "hidden_sizes",
    "activation",
    "feature_dim",
    "hidden_dim",
    "recurrence",
    "use_previous_action_and_reward",
    "normalise_observations",
    "observation_clip",
)
"""Settings that decide what a network computes; ModelSpec has the same names."""


class FinishedRun(NamedTuple):
    """Totals of a finished run.

    Attributes:
      steps: agent steps trained on.
      updates: optimizer steps.
      episodes: finished episodes.
      checkpoint: name of the newest checkpoint.
      total_steps: agent steps at which it ended.
      replaced_steps: total_steps of the settings, where an administrator set another; else 0.
    """

    steps: int
    updates: int
    episodes: int
    checkpoint: str
    total_steps: int
    replaced_steps: int = 0


def validate_start(config: TrainConfig, resume: Path | None) -> None:
    """Raises an error if the learner cannot work with these settings on this machine.

    Args:
      config: all settings.
      resume: folder of the run to resume; None: a new run.

    Raises:
      ConfigError: device, network or initial weights cannot be used, or do not fit the run.
      MissingExtraError: wandb is not installed.
    """
    require_device("--device", config.job.device)
    if config.checkpoint.wandb_project and not is_installed("wandb"):
        raise MissingExtraError("--wandb-project", "wandb")
    if config.checkpoint.mlflow_experiment and not is_installed("mlflow"):
        raise MissingExtraError("--mlflow-experiment", "mlflow")
    _require_security_files(config.security)
    model = config.model.model
    if is_own_model(model) and not model.startswith(OBJECT_PREFIX):
        problem = find_class_problem(*model.split(":", 1))
        if problem:
            raise ConfigError("--model", model, "a class in a module that can be found", problem)
    if resume is not None:
        _require_same_network(config, RunDirectory(resume))
    elif config.job.init_model_path:
        path = Path(config.job.init_model_path)
        with reading("--init-model-path", path, "a checkpoint's folder"):
            is_folder = path.is_dir()
        if not is_folder:
            names = CheckpointStore(path.parent).all_names()
            raise ConfigError(
                "--init-model-path",
                str(path),
                "a checkpoint's folder",
                f"in {path.parent} there are: {', '.join(names)}" if names else "there is none",
            )
        try:
            CheckpointStore(path.parent).describe(path.name)
        except ImpalaError as error:
            raise ConfigError(
                "--init-model-path", str(path), "a checkpoint's folder", str(error)
            ) from error
    specs = config.environment.specs_file
    if specs:
        try:
            EnvironmentSpec.from_json(json.loads(Path(specs).read_bytes())["environment"])
        except (OSError, ValueError, KeyError, TypeError, ImpalaError) as error:
            rule = "a readable specs.json, as a run has it"
            raise ConfigError(
                "--specs-file", specs, rule, f"{type(error).__name__}: {error}"
            ) from error


def _require_security_files(security: SecurityConfig) -> None:
    """Raises ConfigError for a token or TLS file that cannot be read."""
    for name in ("actor_token_file", "evaluator_token_file", "admin_token_file"):
        if path := getattr(security, name):
            read_token("--" + name.replace("_", "-"), path)
    for name in ("tls_cert", "tls_key", "tls_client_ca", "tls_ca"):
        if path := getattr(security, name):
            try:
                Path(path).open("rb").close()
            except OSError as error:
                option = "--" + name.replace("_", "-")
                raise ConfigError(option, path, "a readable file", str(error.strerror)) from None


def find_finished(config: TrainConfig, resume: Path | None) -> FinishedRun | None:
    """Returns the totals of a run that has trained its `total_steps`; None for any other run.

    Where an administrator set another end while the run trained, that one holds.
    """
    if resume is None:
        return None
    summary = describe_newest(CheckpointStore(RunDirectory(resume).checkpoints_path))
    counters = summary.state.get("counters", {}) if summary is not None else {}
    steps = counters.get("trained_steps", 0)
    configured = config.job.total_steps
    total_steps = find_total_steps(configured, summary)
    if summary is None or steps < total_steps:
        return None
    updates, episodes = counters.get("policy_version", 0), counters.get("num_episodes", 0)
    replaced_steps = 0 if total_steps == configured else configured
    return FinishedRun(steps, updates, episodes, summary.name, total_steps, replaced_steps)


def describe_finished(run: Path, finished: FinishedRun) -> str:
    """Returns one line: the run has finished, and how to train it further."""
    text = (
        f"{run} has finished: {finished.steps:,} of {finished.total_steps:,} steps; nothing is "
        f"started. Go on with --resume {shlex.quote(str(run))} --total-steps N, N more than "
        f"{finished.steps}"
    )
    if finished.replaced_steps > finished.steps:
        text += f" and not {finished.replaced_steps}, in whose place an administrator set the end"
    return text


def summarise_finished(run: Path, finished: FinishedRun) -> dict[str, Any]:  # Any: JSON
    """Returns the --json output of the commands for a finished run."""
    return {
        "run": str(run),
        "reason": "finished",
        "steps": finished.steps,
        "updates": finished.updates,
        "episodes": finished.episodes,
        "checkpoint": finished.checkpoint,
    }


def _require_same_network(config: TrainConfig, run: RunDirectory) -> None:
    """Raises ConfigError if the settings name a network other than the run's."""
    try:
        trained = json.loads(run.specs_path.read_text(encoding="utf-8"))["model"]
        known = {name: trained[name] for name in (*_NETWORK_SETTINGS, "name")}
        asked_for_normalisation = load_config(run.config_path).model.normalise_observations
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return  # not begun, or damaged: the learner reports it
    wanted = dataclasses.asdict(config.model)
    is_normalised = config.loss.reward_normalisation != "none"
    if is_normalised != trained.get("normalise_rewards", is_normalised):
        value = config.loss.reward_normalisation
        _refuse("--reward-normalisation", value, "none" if is_normalised else "not none")
    if config.model.model not in ("auto", known["name"]):
        _refuse("--model", config.model.model, known["name"])
    scale = config.model.observation_scale
    if scale is not None and scale != trained.get("observation_scale", scale):
        _refuse("--observation-scale", scale, trained["observation_scale"])
    for name in _NETWORK_SETTINGS:
        value, had = wanted[name], known[name]
        if name == "normalise_observations" and value and asked_for_normalisation:
            continue  # False there only says that no leaf could be normalised
        had = tuple(had) if isinstance(had, list) else had
        if value != had:
            _refuse("--" + name.replace("_", "-"), value, had)


def _refuse(option: str, value: object, had: object) -> None:
    raise ConfigError(
        option, value, f"{had} with --resume", "the weights in its checkpoints are of that network"
    )
