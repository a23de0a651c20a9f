"""film_run: writes video files of a run's policy.

Called by `impala_actor.eval_cli`, which imports this file late. Pictures go from
the environment to the encoder one by one: an episode may be long.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from impala_actor.environments.rendering import RenderedEnvironment, make_rendered_environment
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_actor.video.recording import DEFAULT_MAX_STEPS, EpisodePlayer, PlayedEpisode
from impala_actor.video.video_files import VideoFormat, make_video_writer, require_video_format
from impala_common.errors import ConfigError
from impala_common.policy.frozen_run import FrozenRun
from impala_common.policy.policy import Policy
from impala_common.spec.specs import validate_same_environment


def film_run(
    run: FrozenRun,
    folder: Path,
    *,
    num_episodes: int,
    video_format: VideoFormat,
    seed: int,
    is_greedy: bool = False,
    env: str | None = None,
    max_steps: int = DEFAULT_MAX_STEPS,
    watchdog: EnvironmentWatchdog | None = None,
) -> list[Path]:
    """Films whole games, one file each, named by run, step, episode and return.

    Args:
      run: the run whose policy plays.
      folder: folder of the files; made if missing.
      num_episodes: number of episodes; filming ends after an episode that was cut.
      video_format: mp4 in full, or gif shrunk and thinned as FrameBuffer says.
      seed: of environment and draws.
      is_greedy: take the most probable action in place of drawing one.
      env: environment to film, which must have the same spaces; None: the run's.
      max_steps: agent steps after which an episode is cut.
      watchdog: entered for every call of the environment; None: calls have no time limit.

    Raises:
      EnvironmentFailedError: the environment's own code raised.
      ConfigError: the environment has no pictures, or the folder cannot be written to.
      MissingExtraError: the extra is not installed.
      SpecMismatchError: the environment's spaces differ from those of training.
    """
    require_video_format(video_format)
    config = run.environment_config
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = make_rendered_environment(env or run.env, config, watchdog)
        with contextlib.closing(made) as environment:
            validate_same_environment(run.environment, environment.spec)
            policy = Policy(run.model, run.environment.action, 1, seed)
            player = EpisodePlayer(policy, environment, seed=seed, is_greedy=is_greedy)
            paths: list[Path] = []
            while len(paths) < num_episodes:
                number = len(paths) + 1
                path, played = _film_episode(
                    player, environment, folder, f"{_head(run)}-episode-{number}", video_format,
                    max_steps,
                )  # fmt: skip
                paths.append(path)
                if played.is_cut:
                    break
            return paths
    except OSError as error:
        raise ConfigError("--video", str(folder), "a folder to write to", str(error)) from error


def _film_episode(
    player: EpisodePlayer,
    environment: RenderedEnvironment,
    folder: Path,
    head: str,
    video_format: VideoFormat,
    max_steps: int,
) -> tuple[Path, PlayedEpisode]:
    writer = make_video_writer(folder, video_format, environment.frames_per_s)
    try:
        played = player.play(writer.take, max_steps)
        cut = "-cut" if played.is_cut else ""
        path = folder / f"{head}-return-{played.episode_return:.6g}{cut}.{video_format}"
        writer.finish(path)
    finally:
        writer.discard()
    return path, played


def _head(run: FrozenRun) -> str:
    name = re.sub(r"[^A-Za-z0-9._]+", "-", run.path.resolve().name).strip("-.") or "run"
    return f"{name}-step-{run.step}"
