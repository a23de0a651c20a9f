"""A learner thread: takes a batch, loads it, updates, gives the slot back.

While one thread updates, the others take and load, so that preparation
overlaps the update; the update itself is serialised by the learner's lock. The
body returns when the queue is closed and reports any other end to `on_failure`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from impala_common.errors import QueueClosedError
from impala_common.process import failpoints
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.learner import Learner


class LearnerThread(threading.Thread):
    """Named `impala-learner-N`; joined by the controller."""

    def __init__(
        self,
        index: int,
        learner: Learner,
        queue: BatchQueue,
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Makes thread `index`; `start` runs it."""
        super().__init__(name=f"impala-learner-{index}")
        self._learner = learner
        self._queue = queue
        self._on_failure = on_failure

    def run(self) -> None:
        """Works until the queue is closed."""
        try:
            while True:
                start_s = time.perf_counter()
                full = self._queue.take()
                wait_s = time.perf_counter() - start_s
                taken_s = time.perf_counter()
                batch = self._learner.loader.load(full.slot)
                load_s = time.perf_counter() - taken_s
                failpoints.hit("learner.before_update")
                is_trained = self._learner.train(full, batch, wait_s, load_s)
                self._queue.give_back(full.slot, is_trained)
        except QueueClosedError:
            return
        except Exception as error:
            self._on_failure(error)
