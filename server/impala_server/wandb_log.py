"""Writes metrics to Weights & Biases (extra: wandb).

Imported only with a W&B project. wandb's environment variables and login decide account, host and
mode (online, offline).
"""

from __future__ import annotations

from collections.abc import Mapping

from impala_common.errors import MissingExtraError
from impala_common.run.metrics import STEPS
from impala_common.run.run_directory import RunDirectory


class WandbLog:
    """One run of a W&B project, named after the run's folder and continued on resume."""

    def __init__(self, run: RunDirectory, project: str) -> None:
        """Starts or continues the run.

        Raises:
          MissingExtraError: wandb is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("--wandb-project", "wandb") from error
        name = run.path.resolve().name
        self._run = wandb.init(
            project=project, name=name, id=name, resume="allow", dir=str(run.path)
        )
        self._run.define_metric("*", step_metric=STEPS)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Logs numbers by name, over agent steps."""
        self._run.log({**scalars, STEPS: step})

    def close(self) -> None:
        """Ends the run; waits until everything is sent."""
        self._run.finish()
