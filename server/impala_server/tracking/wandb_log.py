"""WandbLog: metrics, settings and videos of a run in Weights & Biases (extra: wandb).

Imported only with a W&B project. wandb's environment variables and login decide account, host and
mode (online, offline).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from impala_common.config import TrainConfig
from impala_common.errors import MissingExtraError
from impala_common.run.metrics import STEPS
from impala_common.run.run_directory import RunDirectory
from impala_server.tracking.run_facts import NewVideos, list_settings, make_id, name_run


class WandbLog:
    """One run of a W&B project, named after the run's folder and continued on resume."""

    def __init__(self, run: RunDirectory, config: TrainConfig) -> None:
        """Starts or continues the run.

        Raises:
          MissingExtraError: wandb is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("--wandb-project", "wandb") from error
        checkpoint = config.checkpoint
        self._make_video: Any = wandb.Video  # Any: its formats are literals
        self._run = wandb.init(
            project=checkpoint.wandb_project,
            entity=checkpoint.wandb_entity or None,
            group=checkpoint.wandb_group or None,
            name=name_run(run),
            id=make_id(run, "wandb"),
            resume="allow",
            dir=str(run.path),
            config=list_settings(config),
            tags=[config.environment.env, config.job.tag],
        )
        self._run.define_metric(STEPS)
        self._run.define_metric("*", step_metric=STEPS)
        self._videos = NewVideos(run)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Logs numbers by name, and new videos of evaluations, over agent steps."""
        self._run.log({**scalars, STEPS: step})
        self._add_videos()

    def close(self) -> None:
        """Ends the run; waits until everything is sent."""
        self._add_videos()
        self._run.finish()

    def _add_videos(self) -> None:
        for path, step in self._videos.take():
            video = self._make_video(str(path), format=path.suffix.removeprefix("."))
            self._run.log({"evaluation/video": video, STEPS: step})
