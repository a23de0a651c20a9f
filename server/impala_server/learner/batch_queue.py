"""BatchQueue: full batch slots on their way to the learner threads.

The queue itself is the hand-off pipe, bounded by the number of storage slots;
this object lets several learner threads take from it and be woken when the
learner stops. Knows nothing of gRPC or torch.
"""

from __future__ import annotations

import threading

from impala_common.errors import QueueClosedError
from impala_server.storage.handoff import FullSlot, HandoffPipe

_POLL_S = 0.1


class BatchQueue:
    """Full slots out, free slots back. Safe for any number of threads."""

    def __init__(self, handoff: HandoffPipe) -> None:
        """Takes over the learner's end of the hand-off pipe."""
        self._handoff = handoff
        self._taking = threading.Lock()
        self._freeing = threading.Lock()
        self._is_closed = threading.Event()
        self._num_taken = self._num_given_back = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is worked on; True for a moment may be by chance."""
        return self._num_taken == self._num_given_back and not self._handoff.frames.has_data()

    @property
    def has_waiting(self) -> bool:
        """Whether a full slot waits in the pipe, or was taken while another is worked on."""
        return self._num_taken - self._num_given_back > 1 or self._handoff.frames.has_data()

    def take(self) -> FullSlot:
        """Returns the next full slot, waiting for it.

        Raises:
          QueueClosedError: `close` was called, or the front end is gone.
        """
        while not self._is_closed.is_set():
            if not self._taking.acquire(timeout=_POLL_S):
                continue
            try:
                with self._freeing:
                    self._handoff.frames.flush()
                full = self._handoff.receive_full(_POLL_S)
                self._num_taken += full is not None
            finally:
                self._taking.release()
            if full is not None:
                return full
        raise QueueClosedError("the batch queue was closed")

    def give_back(self, slot: int, is_trained: bool = True) -> None:
        """Frees a slot for new unrolls, and reports whether its batch was trained on."""
        with self._freeing:
            self._handoff.send_free(slot, is_trained)
            self._num_given_back += 1

    def close(self) -> None:
        """Ends all `take` calls within a tenth of a second."""
        self._is_closed.set()
