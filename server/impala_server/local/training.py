"""LocalTraining: a learner server and its actors on this machine.

Used by impala-train and by the class IMPALA, from one thread. Learner, front end and actors are
processes, and end when this process ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from impala_common.config import TrainConfig
from impala_common.errors import ConfigError
from impala_common.process.logs import LogFormat
from impala_common.process.passed_objects import ObjectMemory
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_common.run.run_end import describe_newest
from impala_server.local.actors import LocalActors
from impala_server.local.ranks import LocalRanks
from impala_server.messages import LearnerStatus
from impala_server.progress import ProgressDisplay
from impala_server.supervisor import Supervisor

_POLL_S = 0.2


class LocalTraining:
    """One training. Owned by the thread that calls `run`.

    Attributes:
      is_bound: set once the learner listens; `address` is its HOST:PORT then.
      address: None before.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        log_level: str = "WARNING",
        log_format: LogFormat = "text",
        objects: ObjectMemory | None = None,
        has_log_files: bool = False,
    ) -> None:
        """Prepares; the caller holds the lock of `run`. Arguments: see Supervisor."""
        self._config = config
        self._run = run
        self._objects = objects
        if objects is not None and objects.names and config.ranks.learner_ranks > 1:
            raise ConfigError(
                "learner_ranks",
                config.ranks.learner_ranks,
                "1 with Python objects as environments or networks",
                "other ranks do not have this process's objects; name modules instead",
            )
        self._learner_life = _count_lives(run)  # before the learner writes checkpoints of this one
        self._ranks = LocalRanks(config, run, log_level)
        self._supervisor = Supervisor(
            config, run, log_level, log_format, objects, has_log_files, self._ranks.first
        )
        self.is_bound = threading.Event()
        self.address: str | None = None

    @property
    def status(self) -> LearnerStatus:
        """The learner's newest status."""
        return self._supervisor.status

    def run(self, display: ProgressDisplay, is_stop_wanted: Callable[[], bool]) -> LearnerStatus:
        """Trains to the end, or until `is_stop_wanted`; returns the learner's last status.

        Raises:
          ImpalaError: learner, front end or actors failed; says why. All have ended by then.
        """
        supervisor = self._supervisor
        actors: LocalActors | None = None
        try:
            display.wait("starting the learner")
            supervisor.start()
            self._ranks.start()
            # The port is known before the learner has loaded torch: actors load it meanwhile.
            self.address = supervisor.wait_until_bound()
            self.is_bound.set()
            actors = LocalActors(
                self._config, self._run, self.address, self._objects, self._learner_life
            )
            if not is_stop_wanted():  # it may have come while the learner was starting
                actors.start()
                display.wait("starting the actors")
            is_judging = is_policy_shown = False
            while (status := supervisor.poll(_POLL_S)) is not None:
                display.update(status)
                self._ranks.check()
                if status.is_judging and not is_judging:
                    is_judging = True
                    display.message("trained: the evaluator judges the last weights")
                if is_stop_wanted():
                    display.message("stopping: finishing the update and writing a checkpoint")
                    break
                if status.state in ("STARTING", "RUNNING", "PAUSED"):
                    actors.check(has_trained=(status.number(metrics.STEPS) or 0) > 0)
                if actors.policy_address is not None and not is_policy_shown:
                    is_policy_shown = True
                    display.message(f"policy server at {actors.policy_address}")
        finally:
            is_finished = supervisor.status.reason == "finished"
            if actors is not None and not is_finished:
                supervisor.request_stop()  # at once: the time it may take counts from here
                actors.stop()
            supervisor.close(is_stop_wanted)
            self._ranks.stop()
            if actors is not None:
                actors.stop(is_run_over=is_finished)
            display.update(supervisor.status)
        supervisor.raise_if_incomplete()
        self._ranks.raise_if_failed()
        return supervisor.status


def _count_lives(run: RunDirectory) -> int:
    """Returns how often the run's learner was started before, as its newest checkpoint knows."""
    newest = describe_newest(CheckpointStore(run.checkpoints_path))
    return 0 if newest is None else newest.state["counters"].get("learner_life", 0) + 1
