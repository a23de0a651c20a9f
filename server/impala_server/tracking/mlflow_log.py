"""MlflowLog: metrics, settings and videos of a run in MLflow (extra: mlflow).

Imported only with an MLflow experiment. MLflow's environment variables decide server and
credentials (MLFLOW_TRACKING_URI); without them it writes to a local store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from impala_common.config import TrainConfig
from impala_common.config.toml_io import dump_config
from impala_common.errors import MissingExtraError
from impala_common.run.run_directory import RunDirectory
from impala_server.tracking.run_facts import (
    NewVideos,
    find_id,
    list_settings,
    make_id,
    name_run,
    without_paths,
)


class MlflowLog:
    """One run of an MLflow experiment, named after the run's folder and continued on resume."""

    def __init__(self, run: RunDirectory, config: TrainConfig) -> None:
        """Starts or continues the run.

        Raises:
          MissingExtraError: mlflow is not installed.
        """
        try:
            import mlflow
            from mlflow.entities import Metric, Param
        except ImportError as error:
            raise MissingExtraError("--mlflow-experiment", "mlflow") from error
        self._make_metric = Metric
        self._client = mlflow.MlflowClient()
        self._flush = mlflow.flush_async_logging
        name = config.checkpoint.mlflow_experiment
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(name)
        )
        self._id = find_id(run, "mlflow")
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {"env": config.environment.env, "tag": config.job.tag}
            made = self._client.create_run(experiment_id, tags=tags, run_name=name_run(run))
            self._id = make_id(run, "mlflow", made.info.run_id)
            settings = list_settings(config)
            params = [Param(key, str(value) or "empty") for key, value in settings.items()]
            for start in range(0, len(params), 100):  # the most that one call takes
                self._client.log_batch(self._id, params=params[start : start + 100])
            self._client.log_text(self._id, dump_config(without_paths(config)), "config.toml")
        self._videos = NewVideos(run)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Hands numbers by name to MLflow's own threads; logs new videos as artifacts."""
        now_ms = int(time.time() * 1000)
        metrics = [self._make_metric(key, value, now_ms, step) for key, value in scalars.items()]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(
                self._id, metrics=metrics[start : start + 1000], synchronous=False
            )
        self._add_videos()

    def close(self) -> None:
        """Ends the run; waits until everything is sent."""
        self._flush()
        self._add_videos()
        self._client.set_terminated(self._id)

    def _add_videos(self) -> None:
        for path, _step in self._videos.take():
            self._client.log_artifact(self._id, str(path), "videos")
