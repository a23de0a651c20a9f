"""Video files can be read back: as many pictures, as large, as long, and what was put in.

Seen to fail with: durations rounded one by one (a video of 15 frames/s then lasts 5 % longer),
the mp4 writer's temporary file left behind, red and blue swapped.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impala_actor.video.recording import Recording
from impala_actor.video.video_files import (
    encode_gif,
    log_video,
    make_video_writer,
    require_video_format,
    write_video,
)
from impala_common.errors import ConfigError, MissingExtraError

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def make_recording(num_frames: int = 9, frames_per_s: float = 15.0) -> Recording:
    frames = np.zeros((num_frames, 48, 64, 3), np.uint8)
    for index in range(num_frames):
        frames[index] = COLOURS[index % 3]
    return Recording(frames, frames_per_s, 1.0, num_frames - 1, is_cut=False)


def read_mp4(path: Path) -> tuple[dict[str, object], np.ndarray]:
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    frames = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]
    return about, np.stack(frames)


def test_write_video_as_mp4_can_be_read_back(tmp_path: Path) -> None:
    recording = make_recording()

    write_video(recording, tmp_path / "video.mp4")

    about, frames = read_mp4(tmp_path / "video.mp4")
    assert about["fps"] == 15.0
    assert frames.shape == recording.frames.shape
    np.testing.assert_allclose(frames.astype(int), recording.frames.astype(int), atol=12)
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_write_video_as_gif_can_be_read_back(tmp_path: Path) -> None:
    recording = make_recording(num_frames=60)

    write_video(recording, tmp_path / "video.gif")

    with Image.open(tmp_path / "video.gif") as image:
        assert (image.size, image.n_frames, image.info["loop"]) == ((64, 48), 60, 0)
        length_ms = 0
        for index in range(60):
            image.seek(index)
            length_ms += image.info["duration"]
            assert image.convert("RGB").getpixel((30, 20)) == COLOURS[index % 3]
    assert length_ms == pytest.approx(4000, abs=10)


def test_encode_gif_of_fast_recording_leaves_pictures_out() -> None:
    recording = make_recording(num_frames=100, frames_per_s=200.0)

    gif = encode_gif(recording.frames, recording.frames_per_s)

    with Image.open(io.BytesIO(gif)) as image:
        assert image.n_frames == 25
        assert image.info["duration"] == 20


@pytest.mark.parametrize("video_format", ["mp4", "gif"])
def test_video_writer_when_discarded_leaves_nothing(tmp_path: Path, video_format: str) -> None:
    writer = make_video_writer(tmp_path, video_format, 10.0)  # type: ignore[arg-type]
    writer.take(make_recording().frames[0])

    with pytest.raises(ConfigError, match="one size"):
        writer.take(np.zeros((10, 10, 3), np.uint8))
    writer.discard()

    assert list(tmp_path.iterdir()) == []


def test_log_video_writes_an_image_that_tensorboard_can_show(tmp_path: Path) -> None:
    from tensorboardX.proto import event_pb2

    log_video(tmp_path, "evaluation/video", make_recording(), step=700)
    log_video(tmp_path, "evaluation/video", make_recording(), step=800)

    steps = []
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        while data:  # length (8), its checksum (4), event, checksum (4)
            size = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                steps.append(event.step)
                assert value.tag == "evaluation/video"
                assert (value.image.height, value.image.width) == (48, 64)
                assert value.image.encoded_image_string.startswith(b"GIF89a")
    assert sorted(steps) == [700, 800]


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda unused_name: None)

    for video_format in ("mp4", "gif"):
        with pytest.raises(MissingExtraError, match=r"impala-rl\[video\]"):
            require_video_format(video_format)  # type: ignore[arg-type]


def test_write_video_with_other_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.mp4 or \.gif"):
        write_video(make_recording(), tmp_path / "video.avi")
