"""Writes videos: mp4 through ffmpeg, animated GIF through Pillow.

Used by `impala-eval --video` and, for TensorBoard, by evaluation during training.
A file gets its name when it is complete. Needs the extra `video`, which includes the ffmpeg
program; libraries are imported late.
"""

from __future__ import annotations

import importlib.util
import io
import os
import secrets
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.rendering import EXTRA
from impala_actor.video.recording import Frame, FrameBuffer, Recording
from impala_common.errors import ConfigError, MissingExtraError
from impala_common.run.run_directory import TEMPORARY_PREFIX, write_bytes_atomic

VideoFormat = Literal["mp4", "gif"]

GIF_TICK_S = 0.01
MIN_GIF_TICKS = 2
"""Viewers show pictures of less than two hundredths of a second far too long."""
_FFMPEG_TIMEOUT_S = 60.0
_MODULES = {"mp4": "imageio_ffmpeg", "gif": "PIL"}


class VideoWriter(Protocol):
    """A video that grows picture by picture."""

    def take(self, frame: Frame) -> None:
        """Adds a picture, uint8 [H, W, 3]; all of a video have one size."""

    def finish(self, path: Path) -> None:
        """Closes the video and moves it to `path`; replaces an existing file."""

    def discard(self) -> None:
        """Drops an unfinished video; does nothing to a finished one."""


def require_video_format(video_format: VideoFormat) -> None:
    """Raises MissingExtraError unless videos of this format can be written."""
    if importlib.util.find_spec(_MODULES[video_format]) is None:
        raise MissingExtraError(f"writing {video_format} videos", EXTRA)


def make_video_writer(folder: Path, video_format: VideoFormat, frames_per_s: float) -> VideoWriter:
    """Returns a writer that keeps unfinished files in `folder`.

    Raises:
      MissingExtraError: the libraries are not there.
    """
    require_video_format(video_format)
    return (Mp4Writer if video_format == "mp4" else GifWriter)(folder, frames_per_s)


class Mp4Writer:
    """H.264 in mp4: every picture in full size, handed to an ffmpeg process at once."""

    def __init__(self, folder: Path, frames_per_s: float) -> None:
        # ffmpeg reads the format from the suffix.
        self._path = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}.mp4"
        self._frames_per_s = frames_per_s
        self._shape: tuple[int, ...] | None = None
        self._pipe: Generator[None, Any, None] | None = None

    def take(self, frame: Frame) -> None:
        """See VideoWriter."""
        if self._pipe is None:
            # Start ffmpeg without a fork in Python: this process may have gRPC's threads.
            os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
            import imageio_ffmpeg

            self._shape = frame.shape
            self._pipe = imageio_ffmpeg.write_frames(
                str(self._path),
                (frame.shape[1], frame.shape[0]),
                fps=self._frames_per_s,
                quality=8,
                macro_block_size=2,  # the least that every player can show
                ffmpeg_timeout=_FFMPEG_TIMEOUT_S,
            )
            self._pipe.send(None)
        _require_same_size(self._shape, frame)
        self._pipe.send(np.ascontiguousarray(frame))

    def finish(self, path: Path) -> None:
        """See VideoWriter."""
        self._close_pipe()
        os.replace(self._path, path)

    def discard(self) -> None:
        """See VideoWriter."""
        try:
            self._close_pipe()
        finally:
            self._path.unlink(missing_ok=True)

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            pipe.close()


class GifWriter:
    """Animated GIF: shrunk and thinned as FrameBuffer says, written when finished."""

    def __init__(self, unused_folder: Path, frames_per_s: float) -> None:
        self._buffer = FrameBuffer(frames_per_s)
        self._shape: tuple[int, ...] | None = None

    def take(self, frame: Frame) -> None:
        """See VideoWriter."""
        self._shape = self._shape or frame.shape
        _require_same_size(self._shape, frame)
        self._buffer.take(frame)

    def finish(self, path: Path) -> None:
        """See VideoWriter."""
        write_bytes_atomic(path, encode_gif(self._buffer.frames, self._buffer.frames_per_s))

    def discard(self) -> None:
        """See VideoWriter."""


def write_video(recording: Recording, path: Path) -> None:
    """Writes a recording; the suffix chooses the format.

    Raises:
      ConfigError: the suffix is neither .mp4 nor .gif.
      MissingExtraError: the libraries are not there.
    """
    video_format = path.suffix.removeprefix(".")
    if video_format not in ("mp4", "gif"):
        raise ConfigError("path", str(path), "the name of an .mp4 or .gif file")
    if video_format == "gif":
        write_bytes_atomic(path, encode_gif(recording.frames, recording.frames_per_s))
        return
    writer = make_video_writer(path.parent, "mp4", recording.frames_per_s)
    try:
        height, width = recording.frames.shape[1:3]
        for frame in recording.frames[:, : height // 2 * 2, : width // 2 * 2]:
            writer.take(frame)  # even sizes: what H.264 can show without scaling
        writer.finish(path)
    finally:
        writer.discard()


def encode_gif(frames: Sequence[Frame] | NDArray[np.uint8], frames_per_s: float) -> bytes:
    """Returns an animated GIF that repeats for ever.

    Args:
      frames: each uint8 [H, W, 3].
      frames_per_s: greater than 0; above 50, frames are left out.

    Raises:
      MissingExtraError: Pillow is not installed.
    """
    require_video_format("gif")
    from PIL import Image

    ticks = 1.0 / (frames_per_s * GIF_TICK_S)
    stride = max(1, -int(-MIN_GIF_TICKS // ticks))
    frames, ticks = frames[::stride], ticks * stride
    # Durations are whole hundredths; rounding their sums keeps the total length.
    ends = np.round(np.arange(len(frames) + 1) * ticks)
    durations_ms = (np.diff(ends) * GIF_TICK_S * 1000).round().astype(int).tolist()
    pictures = (Image.fromarray(frame) for frame in frames)  # one at a time: they are copies
    file = io.BytesIO()
    next(pictures).save(
        file,
        "GIF",
        save_all=True,
        append_images=pictures,
        duration=durations_ms,
        loop=0,
        disposal=1,
    )
    return file.getvalue()


def log_video(folder: Path, tag: str, recording: Recording, step: int) -> None:
    """Shows a recording in TensorBoard, among the images.

    Each call writes an event file of its own and closes it. TensorBoard follows one growing
    file per folder, so `folder` must not be the one that the learner writes to.

    Args:
      folder: of event files; made if missing.
      tag: its tag in TensorBoard.
      recording: see `record_episodes`.
      step: agent steps trained.

    Raises:
      MissingExtraError: Pillow is not installed.
    """
    from tensorboardX import event_file_writer
    from tensorboardX.proto import event_pb2, summary_pb2

    _count, height, width, _channels = recording.frames.shape
    image = summary_pb2.Summary.Image(
        height=height,
        width=width,
        colorspace=3,
        encoded_image_string=encode_gif(recording.frames, recording.frames_per_s),
    )
    value = summary_pb2.Summary.Value(tag=tag, image=image)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = f".{time.time_ns() % 10**9:09d}.{secrets.token_hex(2)}"
    writer = event_file_writer.EventsWriter(str(folder / "events"), suffix)
    writer.write_event(
        event_pb2.Event(
            wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=[value])
        )
    )
    writer.close()


def _require_same_size(shape: tuple[int, ...] | None, frame: Frame) -> None:
    if frame.shape != shape:
        raise ConfigError(
            "env",
            f"pictures of {shape}, then {frame.shape}",
            "one that draws all pictures of an episode in one size",
        )
