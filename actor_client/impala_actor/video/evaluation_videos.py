"""EvaluationVideos: films one episode of every n-th candidate.

Owned by the evaluator's loop and called on its thread, after a candidate's results were reported.
An mp4 (or GIF) goes to FOLDER/videos, an animated GIF to FOLDER/tensorboard/evaluation,
a folder that the learner does not write to. The newest NUM_KEPT of each stay. The first failure is
logged and ends the videos, never the evaluation.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from pathlib import Path

from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_actor.evaluation.policy_evaluation import EvaluablePolicy
from impala_actor.video.recording import record_episodes
from impala_actor.video.video_files import log_video, require_video_format, write_video
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import QueueClosedError
from impala_common.run.run_directory import TEMPORARY_PREFIX, RunDirectory

_LOG = logging.getLogger(__name__)
_MAX_FRAMES = 240  # candidates wait while a video is made
_MAX_SIDE = 240
TAG = "evaluation/video"
"""Their tag in TensorBoard."""
NUM_KEPT = 20
"""Videos of evaluations that stay in a folder; older ones are removed."""


class EvaluationVideos:
    """The videos of one evaluator."""

    def __init__(
        self,
        folder: str,
        every: int,
        env: str,
        config: EnvironmentConfig,
        watchdog: EnvironmentWatchdog | None = None,
    ) -> None:
        """Films in an environment of its own.

        Args:
          folder: folder of the files, such as the run's.
          every: the first evaluation is filmed, and then every so many; 0: none.
          env: environment id.
          config: its settings.
          watchdog: entered for every call of it; None: calls have no time limit.
        """
        self._run = RunDirectory(folder)
        self._every = every
        self._env = env
        self._config = config
        self._watchdog = watchdog
        self._num_evaluations = 0

    def is_next_filmed(self) -> bool:
        """Counts an evaluation; returns whether this one is to be filmed."""
        self._num_evaluations += 1
        return self._every > 0 and (self._num_evaluations - 1) % self._every == 0

    def film(self, policy: EvaluablePolicy, step: int, seed: int) -> Path | None:
        """Films one episode of drawn actions; returns its file, None where there is none.

        Args:
          policy: of one slot; any error of it except QueueClosedError is a failed video.
          step: agent steps trained.
          seed: of the environment.

        Raises:
          QueueClosedError: the policy reports that the evaluator stops.
        """
        try:
            require_video_format("gif")  # before an episode is played
            is_mp4 = importlib.util.find_spec("imageio_ffmpeg") is not None
            (recording,) = record_episodes(
                policy,
                self._env,
                self._config,
                num_episodes=1,
                seed=seed,
                max_frames=_MAX_FRAMES,
                max_side=_MAX_SIDE,
                watchdog=self._watchdog,
            )
            folder = self._run.tensorboard_path / "evaluation"
            log_video(folder, TAG, recording, step)
            _keep_newest(folder, "events.out.tfevents.*")
            cut = "-cut" if recording.is_cut else ""
            name = f"step-{step:012d}-return-{recording.episode_return:.6g}{cut}"
            path = self._run.videos_path / f"{name}.{'mp4' if is_mp4 else 'gif'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(recording, path)
            _keep_newest(path.parent, "step-*-return-*", f"{TEMPORARY_PREFIX}*")
        except QueueClosedError:
            raise
        except Exception as error:  # drawing libraries may raise any error
            self._every = 0
            _LOG.warning("evaluation goes on without videos: %s", error or type(error).__name__)
            return None
        _LOG.info("filmed %s", path)
        return path


def _keep_newest(folder: Path, *patterns: str) -> None:
    """Removes all but the newest files of a pattern, by modification time.

    Not by the step in the name, which a rollback decreases. Another evaluator may film into the
    same folder and remove a file first.
    """
    found = []
    for pattern in patterns:
        for path in folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path))
    for _time, path in sorted(found)[:-NUM_KEPT]:
        path.unlink(missing_ok=True)
