"""LoadMethod: `IMPALA.load(path)` makes an agent, `agent.load(path)` loads into one.

Everything but objects of Python comes from the path: a run's folder, a checkpoint or an exported
policy. Such objects, which no file holds, are arguments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

from impala_agent.agent_files import load_checkpoint
from impala_common.config.checks import OBJECT_PREFIX, is_own_model
from impala_common.errors import CheckpointError, ConfigError
from impala_common.policy.exported_policy import (
    holds_exported_policy,
    load_exported_policy,
    read_description,
)
from impala_common.run.checkpoints import Checkpoint
from impala_common.run.run_directory import RunDirectory

if TYPE_CHECKING:
    from impala_agent.agent import IMPALA

PathLike = str | os.PathLike[str]
Settings = dict[str, dict[str, Any]]  # Any: settings by section and name


class MakeAgent(Protocol):
    """Type of `IMPALA.load`."""

    def __call__(
        self,
        path: PathLike,
        *,
        env: object = None,
        eval_env: object = None,
        model: object = None,
        device: str = "",
        run_dir: PathLike | None = None,
        quiet: bool = False,
    ) -> IMPALA:
        """See `make_agent`."""


class LoadMethod:
    """The attribute `load` of IMPALA and of its objects."""

    @overload
    def __get__(self, agent: None, owner: type[IMPALA]) -> MakeAgent: ...

    @overload
    def __get__(self, agent: IMPALA, owner: type[IMPALA]) -> Callable[[PathLike], None]: ...

    def __get__(
        self, agent: IMPALA | None, owner: type[IMPALA]
    ) -> MakeAgent | Callable[[PathLike], None]:
        """Returns the function for a class or for an object."""
        if agent is not None:
            return agent.load_state

        def load(path: PathLike, **arguments: Any) -> IMPALA:  # Any: as MakeAgent says
            return make_agent(owner, path, **arguments)

        load.__doc__ = make_agent.__doc__
        return load


class _Saved(NamedTuple):
    """The contents of a path.

    Attributes:
      settings: of its run.
      checkpoint: its weights, and further state where `is_complete`.
      is_complete: whether optimizer and counters are there, too.
      run_dir: the run's folder where the path is one.
    """

    settings: Settings
    checkpoint: Checkpoint
    is_complete: bool
    run_dir: Path | None


def make_agent(
    owner: type[IMPALA],
    path: PathLike,
    *,
    env: object = None,
    eval_env: object = None,
    model: object = None,
    device: str = "",
    run_dir: PathLike | None = None,
    quiet: bool = False,
) -> IMPALA:
    """Returns an agent with the settings and the state in a folder.

    Args:
      owner: the class.
      path: folder of a run (its newest checkpoint), of a checkpoint, or of an exported policy,
        which has weights only.
      env: environment; needed where the run's was a Python object, else None.
      eval_env: environment of evaluations; None: the run's.
      model: the network; needed where the run's is user-supplied ("module:Class" or an object): a
        file never decides by itself what is imported.
      device: of the learner; empty: the run's.
      run_dir: folder that further training goes to; None: `path` itself where it is a run's
        folder, which then goes on, else a new one.
      quiet: whether `train` shows no progress.

    Raises:
      ConfigError: an object is needed; the text names the argument.
      CheckpointError: there is nothing to load, or it is damaged, or of other spaces.
    """
    saved = _read(Path(os.path.abspath(path)), model)  # whatever folder the caller goes to later
    settings = saved.settings
    env = env or _require_plain("env", settings["environment"].get("env", ""))
    name = str(settings["model"].get("model", ""))
    if model is None and is_own_model(name):
        raise ConfigError(
            "model",
            None,
            "the network that the run was trained with",
            f"{path} names {name!r}, and what a file says is not imported by itself",
        )
    if model is not None:
        settings["model"]["model"] = "auto"  # `model` replaces it
    if eval_env is None:
        eval_env = settings["evaluation"].get("eval_env") or None
    if str(settings["evaluation"].get("eval_env", "")).startswith(OBJECT_PREFIX):
        eval_env = None if eval_env == settings["evaluation"]["eval_env"] else eval_env
        settings["evaluation"]["eval_env"] = ""
    if device:
        settings["job"]["device"] = device
    agent = owner(
        env,
        eval_env,
        model=model,
        config=settings,
        run_dir=run_dir or saved.run_dir,
        quiet=quiet,
    )
    agent.take(saved.checkpoint, saved.run_dir, is_complete=saved.is_complete)
    return agent


def _read(path: Path, model: object) -> _Saved:
    if holds_exported_policy(path):
        return _read_exported(path, model)
    checkpoint = load_checkpoint(path)
    try:
        # A copy, as settings are replaced; JSON, so that tuples are lists.
        settings: Settings = json.loads(json.dumps(checkpoint.state["settings"]))
        settings["transport"] |= {"port": 0, "front_end": "process"}
        for section in ("environment", "model", "evaluation", "job"):
            settings[section] = dict(settings[section])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.name} was not written by a learner: {error!r}"
        ) from error
    is_run = RunDirectory(path).specs_path.is_file()
    return _Saved(settings, checkpoint, True, path if is_run else None)


def _read_exported(path: Path, model: object) -> _Saved:
    about = read_description(path)
    policy = load_exported_policy(path, model if isinstance(model, str) else "")
    network = dict(about["model"])
    has_rewards = network.pop("normalise_rewards")
    network.pop("normalise_integers", None)  # no setting; the checkpoint has it
    settings: Settings = {
        "environment": {**about["environment_config"], "env": policy.env},
        "model": {"model": network.pop("name"), **network},
        "loss": {"reward_normalisation": "return_std" if has_rewards else "none"},
        "evaluation": {},
        "job": {},
    }
    weights = {name: value.cpu().numpy() for name, value in policy.model.state_dict().items()}
    state = {"environment": about["environment"], "model": about["model"]}
    checkpoint = Checkpoint(path.name, policy.step, {"weights": weights}, state)
    return _Saved(settings, checkpoint, False, None)


def _require_plain(argument: str, name: str) -> str:
    """Returns the name of an environment that can be made by its name alone."""
    if name.startswith(OBJECT_PREFIX):
        raise ConfigError(
            argument,
            None,
            "the environment that the run was trained on",
            f"it was a Python object ({name.removeprefix(OBJECT_PREFIX)}), which no file holds",
        )
    return name
