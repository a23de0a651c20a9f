"""BatchFetcher: a thread that takes batches from a source ahead of the rank loop.

The rank loop must meet the other ranks whether it has a batch or not, so that it never waits in the
source itself. One batch at most lies ready, beside the one in use.
"""

from __future__ import annotations

import queue
import threading

from impala_common.errors import QueueClosedError
from impala_server.learner.batch_source import BatchSource, TakenBatch

_POLL_S = 0.1


class BatchFetcher(threading.Thread):
    """Named `impala-fetcher`; started by the rank loop, ends when the source is closed."""

    def __init__(self, source: BatchSource) -> None:
        """Takes from `source`; `start` begins."""
        super().__init__(name="impala-fetcher")
        self._source = source
        self._ready: queue.Queue[TakenBatch] = queue.Queue(1)
        self._is_closed = threading.Event()
        self._failure: Exception | None = None

    @property
    def has_waiting(self) -> bool:
        """Whether a batch lies ready."""
        return not self._ready.empty()

    def next(self, timeout_s: float) -> TakenBatch | None:
        """Returns the next batch; None if none came in time.

        Raises:
          QueueClosedError: the source is closed.
        """
        try:
            return self._ready.get(timeout=timeout_s)
        except queue.Empty:
            pass
        if self._failure is not None:
            raise self._failure
        if self._is_closed.is_set():
            raise QueueClosedError("the batches have ended")
        return None

    def close(self) -> None:
        """Ends the thread; a batch that lies ready is dropped."""
        self._is_closed.set()

    def run(self) -> None:
        """Takes until closed."""
        try:
            while not self._is_closed.is_set():
                taken = self._source.take()
                while not self._put(taken):
                    if self._is_closed.is_set():
                        self._source.release(taken, False)
                        return
        except QueueClosedError:
            self._is_closed.set()
        except Exception as error:
            self._failure = error

    def _put(self, taken: TakenBatch) -> bool:
        try:
            self._ready.put(taken, timeout=_POLL_S)
        except queue.Full:
            return False
        return True
