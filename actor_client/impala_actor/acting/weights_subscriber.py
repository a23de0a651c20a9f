"""WeightsSubscriber: fetches new weights on a background thread.

Its own thread fetches when a verdict reports a newer version; the actor's loop takes the newest at
unroll boundaries and skips older ones.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from impala_actor.acting.learner_client import LearnerClient, Session, Weights
from impala_common.codec.weights import unpack_snapshot
from impala_common.errors import (
    ImpalaError,
    LearnerUnavailableError,
    QueueClosedError,
    RunFinishedError,
)

_LOG = logging.getLogger(__name__)
_CLOSE_S = 1.0
_RETRY_S = 1.0

Array = np.ndarray[Any, Any]


class WeightsSubscriber:
    """The newest weights of one session."""

    def __init__(self, client: LearnerClient, session: Session) -> None:
        """Starts the thread; it fetches only after `notify`."""
        self._client = client
        self._session = session
        self._changed = threading.Condition()
        self._wanted_version = -1
        self._newest: Weights | None = None
        self._fetched_version = -1
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="impala-weights")
        self._thread.start()

    def notify(self, policy_version: int) -> None:
        """Tells that `policy_version` is published."""
        with self._changed:
            if policy_version > self._wanted_version:
                self._wanted_version = policy_version
                self._changed.notify_all()

    def take_newest(self) -> tuple[int, dict[str, Array]] | None:
        """Returns (version, weights) if newer ones arrived since the last call."""
        if self._newest is None:  # read without the lock: new ones are found at the next call
            return None
        with self._changed:
            newest, self._newest = self._newest, None
        return None if newest is None else (newest.policy_version, unpack_snapshot(newest.data))

    def fetch(
        self, min_version: int = 0, check: Callable[[], None] = lambda: None
    ) -> tuple[int, dict[str, Array]]:
        """Returns (version, weights) of at least `min_version`, waiting for them.

        Args:
          min_version: version to wait for.
          check: called before each try; an error that it raises ends the waiting. A learner that
            has finished publishes no more versions, and only the sender learns of it.

        Raises:
          ImpalaError: the learner cannot be reached, or the session is over.
        """

        def attempt() -> Weights | None:
            check()
            self._client.heartbeat.beat()
            return self._client.get_weights(self._session, None, min_version)

        while True:
            if self._client.stop.is_set():
                raise QueueClosedError("the actor is stopping")
            weights = self._client.retrying()(attempt)
            if weights is not None and weights.policy_version >= min_version:
                with self._changed:
                    self._fetched_version = max(self._fetched_version, weights.policy_version)
                return weights.policy_version, unpack_snapshot(weights.data)

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)  # closing the connection ends a call under way

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._wanted_version <= self._fetched_version and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
            try:
                weights = self._client.get_weights(self._session, self._fetched_version)
            except ImpalaError as error:
                # The sender gets the same error and handles it; this thread only waits.
                is_usual = isinstance(error, LearnerUnavailableError | RunFinishedError)
                level = logging.INFO if is_usual else logging.WARNING
                _LOG.log(level, "weights could not be fetched: %s", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, _RETRY_S)
                continue
            with self._changed:
                if weights is not None:
                    self._newest = weights
                    self._fetched_version = weights.policy_version
                else:
                    self._wanted_version = self._fetched_version
