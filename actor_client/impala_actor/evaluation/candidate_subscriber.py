"""CandidateSubscriber: waits for candidates of the learner on a background thread.

Its own thread keeps the stream open, and opens it again with backoff when it breaks. The
evaluator's loop takes the newest candidate, and checks between two steps whether its result is
still wanted.
"""

from __future__ import annotations

import logging
import threading

from impala_actor.evaluation.evaluation_client import (
    EvaluationClient,
    Task,
    Watch,
    WatchEnd,
    Welcome,
)
from impala_common.errors import (
    CapacityError,
    ImpalaError,
    LearnerUnavailableError,
    StaleSessionError,
)
from impala_common.spec.specs import EnvironmentSpec

_LOG = logging.getLogger(__name__)
_CLOSE_S = 2.0
_POLL_S = 0.5
_PAUSE_S = 0.5


class CandidateSubscriber:
    """The newest candidate that the learner offers."""

    def __init__(
        self, client: EvaluationClient, environment: EnvironmentSpec, model: str = ""
    ) -> None:
        """Starts the thread; arguments: see `EvaluationClient.watch`."""
        self._model = model
        self._client = client
        self._environment = environment
        self._changed = threading.Condition()
        self._newest: Task | None = None
        self._learner_run_id: int | None = None
        self._watch: Watch | None = None
        self._is_over = False
        self._failure: ImpalaError | None = None
        self._thread = threading.Thread(target=self._run, name="impala-candidates")
        self._thread.start()

    def take(self, but: str = "") -> Task | None:
        """Waits for a candidate; None when the run has finished or `stop` is set.

        Args:
          but: name of a candidate that was played and may be offered once more.

        Raises:
          ImpalaError: the learner refuses, or cannot be reached within connect_timeout_s.
        """
        with self._changed:
            while True:
                if self._failure is not None:
                    raise self._failure
                if self._is_over or self._client.stop.is_set():
                    return None  # the run has ended: ignore a waiting candidate
                task, self._newest = self._newest, None
                if task is not None and task.candidate != but:
                    return task
                self._changed.wait(_POLL_S)  # a signal sets `stop` without notifying this condition
                self._client.heartbeat.beat()

    def wants(self, task: Task) -> bool:
        """Returns whether the learner still wants the result of `task`."""
        is_known = self._learner_run_id in (None, task.learner_run_id)
        return is_known and not self._is_over and not self._client.stop.is_set()

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._is_over = True
            if self._watch is not None:
                self._watch.cancel()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            while not self._is_over:
                self._client.retrying()(self._watch_once)
                self._client.stop.wait(0.0 if self._is_over else _PAUSE_S)
        except ImpalaError as error:
            with self._changed:
                if not self._is_over and not self._client.stop.is_set():
                    self._failure = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _watch_once(self) -> None:
        """Reads one stream to its end.

        Raises:
          LearnerUnavailableError: the learner was not there, or has no place: patience runs out
            some time.
        """
        with self._changed:
            if self._is_over:
                return
            self._watch = self._client.watch(self._environment, self._model)
        is_welcome = False
        try:
            for message in self._watch.messages():
                is_welcome = True
                self._take_in(message)
        except (LearnerUnavailableError, StaleSessionError, CapacityError) as error:
            if not is_welcome and not self._is_over:
                raise LearnerUnavailableError(str(error)) from error
            _LOG.info("the stream of candidates broke: %s", error)

    def _take_in(self, message: Task | Welcome | WatchEnd) -> None:
        with self._changed:
            if isinstance(message, Task):
                self._newest, self._learner_run_id = message, message.learner_run_id
            elif isinstance(message, WatchEnd):
                self._is_over = message.is_finished
            self._changed.notify_all()
