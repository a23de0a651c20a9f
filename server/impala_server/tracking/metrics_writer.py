"""Metrics of a run on disk: one line of metrics.jsonl per interval, and TensorBoard events.

Called by the learner's controller thread only. If the disk refuses a line, that line is lost and a
warning is logged; the run goes on.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from impala_common.config import TrainConfig
from impala_common.run import metrics as names
from impala_common.run.run_directory import RunDirectory, write_text_atomic
from impala_server.tracking.event_file import EventFile
from impala_server.tracking.logs import make_logs
from impala_server.tracking.run_facts import list_settings
from impala_server.tracking.scalar_log import ScalarLog

_log = logging.getLogger(__name__)


def make_metrics_writer(run: RunDirectory, config: TrainConfig) -> MetricsWriter:
    """Returns the writer of a run with the logs that its settings ask for.

    Raises:
      MissingExtraError: a package is not installed.
      Exception: a program refuses, such as without a login.
    """
    return MetricsWriter(
        run, config.checkpoint.tensorboard, make_logs(run, config), list_settings(config)
    )


class MetricsWriter:
    """Appends to metrics.jsonl, TensorBoard and further logs; owned by one thread."""

    def __init__(
        self,
        run: RunDirectory,
        tensorboard: bool,
        further: Sequence[ScalarLog] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
          run: its folder.
          tensorboard: whether event files are written.
          further: other logs, closed by `close`.
          settings: all settings by name, for TensorBoard; None: not shown.
        """
        self._run = run
        self._with_tensorboard = tensorboard
        self._settings = settings
        self._purge_step: int | None = None
        self._further = tuple(further)
        self._logs: list[ScalarLog] | None = None  # opened with the first line
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
        for log in self._further if self._logs is None else self._logs:
            try:
                log.close()
            except OSError as error:
                _log.warning("the last metrics could not be written: %s", error)
        self._logs, self._further = [], ()

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
            logs = list(self._further)
            if self._with_tensorboard:
                folder = self._run.tensorboard_path
                logs.append(EventFile(folder, self._purge_step, self._settings))
            self._logs = logs
        scalars = {
            name: value for name, value in line.items() if name != names.STEPS and value is not None
        }
        for log in self._logs:
            log.add_scalars(scalars, step)
