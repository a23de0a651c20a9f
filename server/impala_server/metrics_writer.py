"""Metrics of a run on disk: one line of metrics.jsonl per interval, and TensorBoard events.

Called by the learner's controller thread only. Training matters more than its
record: a disk that refuses a line costs that line and a warning, not the run.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from impala_common import metrics as names
from impala_common.run_directory import RunDirectory, write_text_atomic

_log = logging.getLogger(__name__)

TENSORBOARD_FLUSH_S = 5
"""Seconds after which TensorBoard events are on disk at the latest."""


class MetricsWriter:
    """Appends to metrics.jsonl and to TensorBoard; owned by one thread."""

    def __init__(self, run: RunDirectory, tensorboard: bool) -> None:
        self._run = run
        self._with_tensorboard = tensorboard
        self._purge_step: int | None = None
        self._tensorboard: Any = None  # Any: tensorboardX has no types
        self._descriptor: int | None = None
        self._is_warned = False

    def truncate_after(self, step: int) -> None:
        """Forgets what was written beyond `step`, where a resumed run goes on.

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
          metrics: values by the names of `impala_common.metrics`; what is not
            finite becomes null.
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
            if self._with_tensorboard:
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
        if self._tensorboard is not None:
            try:
                self._tensorboard.close()
            except OSError as error:
                _log.warning("TensorBoard events could not be written: %s", error)
            self._tensorboard = None

    def _append(self, text: str) -> None:
        """Appends one line in one write, on a line of its own."""
        if self._descriptor is None:
            self._descriptor = os.open(
                self._run.metrics_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644
            )
        size = os.fstat(self._descriptor).st_size
        # A crash or a full disk may have left half a line.
        is_torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        data = (("\n" if is_torn else "") + text).encode()
        if os.write(self._descriptor, data) != len(data):
            raise OSError("the disk took only a part of the line")

    def _add_scalars(self, line: Mapping[str, float | None], step: int) -> None:
        if self._tensorboard is None:
            # Here, not at the top: it imports torch, and not every run wants it.
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(
                str(self._run.tensorboard_path),
                purge_step=self._purge_step,
                flush_secs=TENSORBOARD_FLUSH_S,
            )
        for name, value in line.items():
            if name != names.STEPS and value is not None:
                self._tensorboard.add_scalar(name, value, step)
