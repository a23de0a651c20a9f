"""EventFile: one TensorBoard event file with scalars, settings, hparams and a layout of cards."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from impala_common.run import metrics

TENSORBOARD_FLUSH_S = 5
"""Seconds after which TensorBoard events are on disk at the latest."""

_HPARAM_PREFIXES = (
    *("environment.env", "optimizer.", "reuse.", "loss.", "rollout.", "model.", "job."),
    "environment.",
)
"""Settings that learning depends on, in the order of their columns in TensorBoard."""
_HPARAM_METRICS = (metrics.RETURN_MEAN, metrics.EVALUATION_RETURN_MEAN, metrics.EVALUATION_BEST)
_LAYOUT = {
    "1 return and evaluation": {
        "return": ["Multiline", [metrics.RETURN_MEAN]],
        "evaluation": [
            "Margin",
            [metrics.EVALUATION_RETURN_MEAN, metrics.EVALUATION_LOW, metrics.EVALUATION_HIGH],
        ],
        "evaluation, drawn and likeliest actions": [
            "Multiline",
            [metrics.EVALUATION_RETURN_MEAN, metrics.GREEDY_RETURN_MEAN],
        ],
    },
    "2 losses": {
        "losses": ["Multiline", [metrics.LOSS_PG, metrics.LOSS_BASELINE, metrics.LOSS_ENTROPY]],
        "entropy": ["Multiline", [metrics.ENTROPY]],
        "explained variance": ["Multiline", [metrics.EXPLAINED_VARIANCE]],
        "KL divergence": ["Multiline", [metrics.KL, metrics.KL_LAST]],
    },
    "3 speed and lag": {
        "agent steps per second": ["Multiline", [metrics.STEPS_PER_S]],
        "policy lag": ["Multiline", [metrics.POLICY_LAG_MEAN, metrics.POLICY_LAG_MAX]],
        "actors": ["Multiline", [metrics.ACTORS_CONNECTED]],
        "time of actors": [
            "Multiline",
            [metrics.ENVIRONMENT_S, metrics.INFERENCE_S, metrics.BLOCKED_S],
        ],
    },
}
"""Cards of the page Custom Scalars, in order: group -> card -> its kind and metrics."""


class EventFile:
    """One TensorBoard event file, written by the caller's thread.

    tensorboardX's own SummaryWriter hands events to a thread through a bounded
    queue; a full disk ends that thread, and the next events would wait forever.
    """

    def __init__(
        self, folder: Path, purge_step: int | None, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Opens a new file.

        Args:
          folder: made if missing.
          purge_step: TensorBoard drops events of earlier files from this step on; None: none.
          settings: all settings by name, shown as text, and as hparams those that learning depends
            on; None: neither.
        """
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
        if settings is not None:
            self._describe(settings, purge_step or 0)

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

    def _describe(self, settings: Mapping[str, Any], step: int) -> None:
        """Writes the settings as hparams and as a table of text, and the layout of cards."""
        from tensorboardX import summary

        hparams = {
            name: value
            for prefix in _HPARAM_PREFIXES
            for name, value in settings.items()
            if name.startswith(prefix)
        }
        experiment, session, _end = summary.hparams(hparams, dict.fromkeys(_HPARAM_METRICS, 0.0))
        rows = [f"| {name} | `{value}` |" for name, value in settings.items()]
        table = "\n".join(["| setting | value |", "|---|---|", *rows])
        for part in (
            experiment,
            session,
            summary.text("settings", table),
            summary.custom_scalars(_LAYOUT),
        ):
            self._write(step=step, summary=part)

    def _write(self, step: int, **fields: Any) -> None:  # Any: messages without types
        self._writer.write_event(self._event_pb2.Event(wall_time=time.time(), step=step, **fields))
