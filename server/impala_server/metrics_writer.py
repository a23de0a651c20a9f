"""Metrics of a run on disk: one line of metrics.jsonl per interval, and TensorBoard events.

Called by the learner's controller thread only. If the disk refuses a line, that line is lost and a
warning is logged; the run goes on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from impala_common.run import metrics as names
from impala_common.run.run_directory import RunDirectory, write_text_atomic

_log = logging.getLogger(__name__)

TENSORBOARD_FLUSH_S = 5
"""Seconds after which TensorBoard events are on disk at the latest."""


class MetricsWriter:
    """Appends to metrics.jsonl, TensorBoard and, if asked, W&B; owned by one thread."""

    def __init__(self, run: RunDirectory, tensorboard: bool, wandb_project: str = "") -> None:
        self._run = run
        self._with_tensorboard = tensorboard
        self._purge_step: int | None = None
        self._logs: list[ScalarLog] | None = None  # opened with the first line
        self._wandb: ScalarLog | None = None
        if wandb_project:  # at once: report a missing package before training
            from impala_server.wandb_log import WandbLog

            self._wandb = WandbLog(run, wandb_project)
        self._descriptor: int | None = None
        self._is_warned = False

    def truncate_after(self, step: int) -> None:
        """Removes lines after `step`, where a resumed run continues.

        Called before the first `write`, or not at all.
        """
        if self._descriptor is not None:
            raise AssertionError("truncate_after must come before the first write")
        # TensorBoard drops events whose step is at least purge_step.
        self._purge_step = step + 1
        if not self._run.metrics_path.exists():
            return
        kept = [
            line for line in names.read_metrics(self._run.metrics_path) if line[names.STEPS] <= step
        ]
        write_text_atomic(self._run.metrics_path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Writes one line, and a scalar of each finite number to TensorBoard.

        Args:
          metrics: values by the names of `impala_common.run.metrics`; a non-finite value becomes
            null.
          step: agent steps trained on.
        """
        line: dict[str, float | None] = {names.STEPS: step}
        line |= {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in metrics.items()
            if name != names.STEPS
        }
        try:
            self._append(json.dumps(line) + "\n")
            self._add_scalars(line, step)
            self._is_warned = False
        except OSError as error:
            if not self._is_warned:
                _log.warning("metrics of step %d could not be written: %s", step, error)
            self._is_warned = True

    def close(self) -> None:
        """Flushes and closes both files; does nothing when closed already."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        for log in self._logs or ():
            try:
                log.close()
            except OSError as error:
                _log.warning("the last metrics could not be written: %s", error)
        self._logs = None

    def _append(self, text: str) -> None:
        """Appends one line in one write, on a line of its own."""
        if self._descriptor is None:
            self._descriptor = os.open(
                self._run.metrics_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644
            )
        size = os.fstat(self._descriptor).st_size
        # A crash or a full disk may have left an incomplete line.
        is_torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        data = (("\n" if is_torn else "") + text).encode()
        if os.write(self._descriptor, data) != len(data):
            raise OSError("the disk took only a part of the line")

    def _add_scalars(self, line: Mapping[str, float | None], step: int) -> None:
        if self._logs is None:
            self._logs = [self._wandb] if self._wandb is not None else []
            if self._with_tensorboard:
                self._logs.append(EventFile(self._run.tensorboard_path, self._purge_step))
        scalars = {
            name: value for name, value in line.items() if name != names.STEPS and value is not None
        }
        for log in self._logs:
            log.add_scalars(scalars, step)


class ScalarLog(Protocol):
    """A further log of numbers by name."""

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes numbers of one step."""

    def close(self) -> None:
        """Flushes and closes the log."""


class EventFile:
    """One TensorBoard event file, written by the caller's thread.

    tensorboardX's own SummaryWriter hands events to a thread through a bounded
    queue; a full disk ends that thread, and the next events would wait forever.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        # Imported here: they import torch, and not every run uses them.
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event_pb2, self._summary_pb2 = event_pb2, summary_pb2
        folder.mkdir(parents=True, exist_ok=True)
        # A file's name has whole seconds and is overwritten: two quick resumes must not share one.
        suffix = f".{time.time_ns() % 10**9:09d}"
        self._writer = event_file_writer.EventsWriter(str(folder / "events"), suffix)
        self._flushed_s = -math.inf
        if purge_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(step=purge_step, session_log=start)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes numbers by name; on disk some seconds later."""
        value = self._summary_pb2.Summary.Value
        values = [value(tag=tag, simple_value=number) for tag, number in scalars.items()]
        self._write(step=step, summary=self._summary_pb2.Summary(value=values))
        if time.monotonic() - self._flushed_s > TENSORBOARD_FLUSH_S:
            self._writer.flush()
            self._flushed_s = time.monotonic()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def _write(self, step: int, **fields: Any) -> None:  # Any: messages without types
        self._writer.write_event(self._event_pb2.Event(wall_time=time.time(), step=step, **fields))
