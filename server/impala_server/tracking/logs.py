"""make_logs: the logs of other programs that a run's settings ask for."""

from __future__ import annotations

from impala_common.config import TrainConfig
from impala_common.run.run_directory import RunDirectory
from impala_server.tracking.scalar_log import OptionalLog, ScalarLog


def make_logs(run: RunDirectory, config: TrainConfig) -> list[ScalarLog]:
    """Starts or continues the run in W&B and MLflow, where the settings name them.

    Raises:
      MissingExtraError: a package is not installed.
      Exception: the program refuses, such as without a login.
    """
    logs: list[ScalarLog] = []
    if config.checkpoint.wandb_project:
        from impala_server.tracking.wandb_log import WandbLog

        logs.append(OptionalLog("W&B", WandbLog(run, config)))
    if config.checkpoint.mlflow_experiment:
        from impala_server.tracking.mlflow_log import MlflowLog

        logs.append(OptionalLog("MLflow", MlflowLog(run, config)))
    return logs
