"""BackgroundTraining: a local training on its own thread, safe from KeyboardInterrupt.

Python raises KeyboardInterrupt anywhere in the main thread. There, `wait` only waits; the interrupt
sets an event, and the training's own thread ends learner and actors in order.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from rich.console import Console

from impala_common.config import TrainConfig
from impala_common.errors import ImpalaError
from impala_common.process.passed_objects import ObjectMemory
from impala_common.run.run_directory import RunDirectory
from impala_server.local.training import LocalTraining
from impala_server.messages import LearnerStatus
from impala_server.progress import ProgressDisplay

_POLL_S = 0.1
_STOP_S = 60.0  # twice the limit of an ordered end


class BackgroundTraining:
    """One training; made, started and waited for by `IMPALA.train`.

    Attributes:
      is_interrupted: whether a KeyboardInterrupt ended it.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        objects: ObjectMemory,
        is_quiet: bool,
    ) -> None:
        """Prepares; the caller holds the run's lock and keeps `objects` until the end."""
        self._training = LocalTraining(
            config, run, objects=objects, has_log_files=True, log_level="WARNING"
        )
        title = f"IMPALA {config.environment.env}"
        console = Console(stderr=True, quiet=is_quiet)
        self._display = ProgressDisplay(config.job.total_steps, title, console)
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="impala-training")
        self.is_interrupted = False

    @property
    def status(self) -> LearnerStatus:
        """The learner's newest status."""
        return self._training.status

    def wait_for_address(self, timeout_s: float) -> str:
        """Waits until the learner listens; returns its address.

        Raises:
          ImpalaError: the training ended before, or the learner did not listen in time.
        """
        is_bound = self._training.is_bound
        for _ in range(max(1, int(timeout_s / _POLL_S))):
            if is_bound.wait(_POLL_S) or self._ended.is_set():
                break
        if self._training.address is None or self._ended.is_set():
            raise ImpalaError(f"the learner did not listen within {timeout_s:g} s")
        return self._training.address

    def request_stop(self) -> None:
        """Requests an ordered end; from any thread."""
        self._stop.set()

    def stop(self) -> None:
        """Requests an ordered end and waits for it; from any thread."""
        self._stop.set()
        self._ended.wait(_STOP_S)

    def run(self, tick: Callable[[], None] = lambda: None) -> LearnerStatus:
        """Trains to the end and returns the last status; all processes have ended by then.

        Calls `tick` on this thread about ten times a second; its error ends the training in order
        and is raised.

        A KeyboardInterrupt meanwhile requests an ordered end, which takes some seconds; a second
        one is ignored, because the checkpoint is being written.

        Raises:
          ImpalaError: learner or actors failed; the text has the reason.
        """
        self._thread.start()
        try:
            while True:
                try:
                    while not self._ended.wait(_POLL_S):
                        tick()
                    break
                except KeyboardInterrupt:
                    self.is_interrupted = True
                    self._stop.set()
        finally:
            self._stop.set()
            while self._thread.is_alive():
                with contextlib.suppress(KeyboardInterrupt):
                    self._thread.join(_POLL_S)
        if self._error is not None:
            raise self._error
        return self._training.status

    def _run(self) -> None:
        try:
            with self._display:
                self._training.run(self._display, self._stop.is_set)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()
