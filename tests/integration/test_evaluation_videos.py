"""Videos of evaluations over real servers: their places, and that a failed one never ends a run.

"Planted" in a docstring names a fault that was put into the code to see the test fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running_server import RunningServer, make_config
from tensorboardX.proto import event_pb2

from impala_actor.environments.rendering import prepare_headless
from impala_actor.video import evaluation_videos
from impala_common.run import metrics

CARTPOLE = "CartPole-v1"


def run_filmed(path: Path, num_lines: int, **settings: Any) -> list[int]:
    """Trains until there are so many evaluations; returns their steps."""
    config = make_config(
        evaluation={"eval_interval_steps": 100, "eval_interval_episodes": 2},
        rollout={"batch_size": 8},
    )

    def steps() -> list[int]:
        if not server.run.metrics_path.exists():
            return []
        lines = [line for line in server.metrics() if metrics.EVALUATION_RETURN_MEAN in line]
        return [line[metrics.STEPS] for line in lines]

    with RunningServer(path, config) as server:
        server.run_evaluator(CARTPOLE, num_envs=2, record_dir=str(path), **settings)
        server.run_actor(CARTPOLE)
        server.wait_until(lambda unused: len(steps()) >= num_lines)
        server.stop()
    return steps()


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    prepare_headless()


def test_videos_of_evaluations_are_in_tensorboard_and_in_files(tmp_path: Path) -> None:
    """The first and every second one. Planted: all are filmed; the learner's folder of events."""
    steps = run_filmed(tmp_path, 4, record_every=2)

    images = {}
    for path in (tmp_path / "tensorboard" / "evaluation").iterdir():
        data = path.read_bytes()
        while data:  # length (8), its checksum (4), event, checksum (4)
            size = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                assert value.tag == "evaluation/video"
                images[event.step] = value.image
    assert sorted(images)[:2] == steps[:4:2]
    assert not set(images) & set(steps[1::2])
    for image in images.values():
        assert image.encoded_image_string.startswith(b"GIF89a")
        assert (image.width, image.height) == (200, 133)
    files = sorted(path.name for path in (tmp_path / "videos").iterdir())
    heads = [f"step-{step:012d}-return-" for step in steps[:4:2]]
    assert [name[: len(head)] for name, head in zip(files, heads, strict=False)] == heads
    assert all(name.endswith(".mp4") for name in files)


def test_video_that_fails_does_not_end_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Planted: only this project's errors caught."""

    def fail(*unused: Any, **also_unused: Any) -> Any:
        raise RuntimeError("no such display")

    monkeypatch.setattr(evaluation_videos, "record_episodes", fail)

    assert len(run_filmed(tmp_path, 3, record_every=1)) >= 3

    assert caplog.text.count("without videos: no such display") == 1
    assert not (tmp_path / "videos").exists()
