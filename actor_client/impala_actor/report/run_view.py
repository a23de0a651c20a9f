"""RunView: one run as the report shows it: label, summary, columns of numbers, videos."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from impala_actor.report.run_summary import RunSummary, summarise_data
from impala_common.config.toml_io import setting_names
from impala_common.run import metrics
from impala_common.run.run_data import Line, RunData, read_run
from impala_common.run.run_directory import RunDirectory

_MAX_POINTS = 1500
_MAX_VIDEOS = 3
_MAX_VIDEO_BYTES = 8 * 2**20
_VIDEO_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}

Value = Callable[[Mapping[str, Any]], float]  # Any: JSON
"""Computes one number of a line of metrics; NaN: none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Video:
    """A video inside the page.

    Attributes:
      name: of its file.
      kind: media type.
      data: the file as base64.
    """

    name: str
    kind: str
    data: str


@dataclasses.dataclass(frozen=True, slots=True)
class RunView:
    """One run.

    Attributes:
      label: the folder's name, made different from those of other runs.
      data: its files.
      summary: its state and main numbers.
      lines: lines of metrics without those that a resume has replaced, at most 1500.
    """

    label: str
    data: RunData
    summary: RunSummary
    lines: tuple[Line, ...]

    def column(self, value: Value, x: str) -> tuple[list[float], list[float]]:
        """Returns x and y of the lines in which both are finite.

        Args:
          value: computes y.
          x: metric of the x axis.
        """
        pairs = [(_number(line, x), value(line)) for line in self.lines]
        pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    @property
    def settings(self) -> dict[str, object]:
        """All settings by section.name."""
        return {
            name: getattr(getattr(self.data.config, section), setting)
            for name in setting_names()
            for section, _, setting in [name.partition(".")]
        }

    @property
    def videos(self) -> list[Video]:
        """The newest videos of evaluations that are small enough to be part of a page."""
        folder = RunDirectory(self.data.path).videos_path
        found = []
        for path in folder.glob("*"):
            # One that is closed to us, or that its evaluator removes meanwhile, is left out.
            with contextlib.suppress(OSError):
                facts = path.stat()
                if path.suffix in _VIDEO_TYPES and facts.st_size <= _MAX_VIDEO_BYTES:
                    found.append((facts.st_mtime, path))
        videos = []
        for _time, path in sorted(found)[-_MAX_VIDEOS:]:
            with contextlib.suppress(OSError):
                data = base64.b64encode(path.read_bytes()).decode()
                videos.append(Video(path.name, _VIDEO_TYPES[path.suffix], data))
        return videos


def read_views(paths: Sequence[Path]) -> list[RunView]:
    """Reads runs; labels are the folders' names, or paths where names are the same.

    Raises:
      ConfigError: a folder holds no run.
    """
    views = []
    names = [path.resolve().name for path in paths]
    for path, name in zip(paths, names, strict=True):
        data = read_run(path)
        label = name if names.count(name) == 1 else os.fspath(path)
        lines = _thin_out(_drop_superseded(data.metrics))
        views.append(RunView(label, data, summarise_data(data), lines))
    return views


def of(name: str, factor: float = 1.0) -> Value:
    """Returns a Value that is a metric times a factor."""
    return lambda line: factor * _number(line, name)


def share_of(seconds: str, per_s: str) -> Value:
    """Returns a Value that is the share of time which something takes that is done so often.

    The two metrics are means over different windows, so their product may exceed 1 on a busy
    machine: it is cut there, as the learner's own bottleneck does.
    """

    def compute(line: Mapping[str, Any]) -> float:  # Any: JSON
        share = _number(line, seconds) * _number(line, per_s)
        return 1.0 if share > 1.0 else share

    return compute


def sum_of(names: Sequence[str]) -> Value:
    """Returns a Value that is the sum of metrics."""
    return lambda line: sum(_number(line, name) for name in names)


def _number(line: Mapping[str, Any], name: str) -> float:  # Any: JSON
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _drop_superseded(lines: Sequence[Line]) -> list[Line]:
    """Drops lines that were written again after a resume from an older checkpoint."""
    kept: list[Line] = []
    for line in reversed(lines):
        if not kept or line[metrics.STEPS] < kept[-1][metrics.STEPS]:
            kept.append(line)
    return kept[::-1]


def _thin_out(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Returns evenly spaced lines, the last among them."""
    stride = -(-len(lines) // _MAX_POINTS) or 1
    return tuple(lines[::-1][::stride][::-1])
