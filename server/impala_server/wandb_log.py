"""Writes metrics to Weights & Biases (extra: wandb).

Imported only then. What account, host or mode (online, offline) is used is
wandb's own business: its environment variables and login.
"""

from __future__ import annotations

from collections.abc import Mapping

from impala_common.errors import MissingExtraError
from impala_common.run.metrics import STEPS
from impala_common.run.run_directory import RunDirectory


class WandbLog:
    """One run of a W&B project, named after the run's folder and continued on resume."""

    def __init__(self, run: RunDirectory, project: str) -> None:
        """Begins or continues the run.

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
        """Ends the run; waits for what is still to be sent."""
        self._run.finish()
