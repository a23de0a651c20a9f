"""Videos of evaluations on disk: only the newest are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_actor.video import evaluation_videos
from impala_actor.video.evaluation_videos import EvaluationVideos
from impala_actor.video.recording import Recording
from impala_common.config import EnvironmentConfig

STEPS = (100, 800, 900, 300, 400)
"""In the order they are filmed; the run was rolled back from 900 to 300."""
NUM_KEPT = 3


def make_recording(*unused: Any, **also_unused: Any) -> list[Recording]:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    return [Recording(frames, 10.0, episode_return=-1.5, num_steps=2, is_cut=False)]


@pytest.mark.parametrize("video_format", ["mp4", "gif"])
def test_videos_of_evaluations_beyond_the_newest_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video_format: str
) -> None:
    """Files and TensorBoard's events alike; what others put there stays.

    Planted: nothing removed; the largest steps kept; all names removed; events left alone.
    """
    monkeypatch.setattr(evaluation_videos, "record_episodes", make_recording)
    monkeypatch.setattr(evaluation_videos, "NUM_KEPT", NUM_KEPT)
    if video_format == "gif":
        monkeypatch.setattr(
            evaluation_videos.importlib.util,
            "find_spec",
            lambda name: None if name == "imageio_ffmpeg" else object(),
        )
    own = tmp_path / "videos" / "best-of-monday.mp4"
    own.parent.mkdir()
    own.touch()
    unfinished = own.with_name(".tmp-1234.mp4")  # of an evaluator that was killed
    unfinished.touch()
    videos = EvaluationVideos(str(tmp_path), 1, "CartPole-v1", EnvironmentConfig())

    events, filmed = [], []
    folder = tmp_path / "tensorboard" / "evaluation"
    for step in STEPS:
        path = videos.film(None, step, seed=0)  # type: ignore[arg-type]
        assert path is not None
        filmed.append(path)
        events += [path for path in folder.iterdir() if path not in events]

    assert set(own.parent.iterdir()) == {own, *filmed[-NUM_KEPT:]}
    assert {path.suffix for path in filmed} == {f".{video_format}"}
    assert set(folder.iterdir()) == set(events[-NUM_KEPT:])
    assert len(events) == len(STEPS)
