"""StatusBoard: the learner's status, and when it is sent to the supervisor and the front end.

Owned by the controller and used on its thread only. Sends never block: a status that finds no
room is dropped, since the next one replaces it; only the last one must arrive.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from impala_server import messages
from impala_server.learner.checkpoint_writer import CheckpointWriter
from impala_server.storage.control_pipe import ControlPipe

_INTERVAL_S = 0.25
_FRONT_END_INTERVAL_S = 1.0


class StatusBoard:
    """The newest status.

    Attributes:
      status: what is sent next, without the newest metrics.
    """

    def __init__(self, state: str, supervisor: ControlPipe, front_end: ControlPipe) -> None:
        """Starts in `state`, without metrics."""
        self.status = messages.LearnerStatus(state=state)
        self._supervisor = supervisor
        self._front_end = front_end
        self._metrics: dict[str, float | None] = {}
        self._sent_s = self._told_front_end_s = time.monotonic()
        self._told_front_end_state = ""

    def show(self, **facts: Any) -> None:  # Any: fields of LearnerStatus
        """Changes fields of the status, which is sent a little later."""
        self.status = dataclasses.replace(self.status, **facts)

    def show_checkpoints(self, writer: CheckpointWriter) -> None:
        """Shows the last checkpoint, its age, and how many could not be written or read."""
        self.show(
            last_checkpoint_age_s=time.monotonic() - writer.last_s,
            checkpoint_failures=writer.num_failures,
            checkpoints_unreadable=writer.num_unreadable,
            last_checkpoint=writer.last.name or self.status.last_checkpoint,
        )

    def show_metrics(self, values: Mapping[str, float | None]) -> None:
        """Adds metrics by name, in place of older ones."""
        self._metrics |= values

    def drop_metrics(self, *names: str) -> None:
        """Removes metrics from the status."""
        for name in names:
            self._metrics.pop(name, None)

    @property
    def is_due(self) -> bool:
        """Whether the status was sent long enough ago to send it again."""
        return time.monotonic() - self._sent_s >= _INTERVAL_S

    def tell_front_end_next(self) -> None:
        """Makes the next `send` reach the front end, however recent the last one is."""
        self._told_front_end_state = ""

    def send(self, state: str, alarm: str = "", *, is_last: bool = False) -> None:
        """Sends the status.

        Args:
          state: name of the learner's present state.
          alarm: added to the status's trouble in what is sent.
          is_last: whether the supervisor must receive it; others may be dropped.
        """
        now_s = self._sent_s = time.monotonic()
        self.show(state=state, metrics=dict(self._metrics))
        status = self.status
        if alarm:
            trouble = "; ".join(filter(None, (status.trouble, alarm)))
            status = dataclasses.replace(status, trouble=trouble)
        news = messages.StatusNews(status)
        # A supervisor that waits for a terminal nobody reads must not stop the updates.
        tell = self._supervisor.send if is_last else self._supervisor.send_if_room
        tell(news)
        is_news = state != self._told_front_end_state
        if is_news or now_s - self._told_front_end_s >= _FRONT_END_INTERVAL_S:
            self._told_front_end_s, self._told_front_end_state = now_s, state
            self._front_end.send_if_room(news)
