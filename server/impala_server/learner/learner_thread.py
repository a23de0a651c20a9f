"""A learner thread: takes a batch, trains on it, releases it.

While one thread updates, the others take and load, so that preparation
overlaps the update; the update itself is serialised by the learner's lock. The
body returns when the source is closed and reports any error to `on_failure`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from impala_common.errors import QueueClosedError
from impala_common.process import failpoints
from impala_server.learner.learner import Learner


class LearnerThread(threading.Thread):
    """Named `impala-learner-N`; joined by the controller."""

    def __init__(
        self, index: int, learner: Learner, on_failure: Callable[[Exception], None]
    ) -> None:
        """Makes thread `index`; `start` runs it."""
        super().__init__(name=f"impala-learner-{index}")
        self._learner = learner
        self._on_failure = on_failure

    def run(self) -> None:
        """Works until the learner's source is closed."""
        source = self._learner.source
        try:
            while True:
                taken = source.take()
                failpoints.hit("learner.before_update")
                source.release(taken, self._learner.train(taken))
        except QueueClosedError:
            return
        except Exception as error:
            self._on_failure(error)
