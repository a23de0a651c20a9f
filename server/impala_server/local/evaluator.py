"""The evaluator process that impala-train starts beside its actors.

An ordinary `impala-evaluator` command that talks gRPC to the learner, replaced when it dies as
actors are. An evaluator that cannot work is logged once and given up: it never ends training.
"""

from __future__ import annotations

import logging

from impala_common.config import TrainConfig
from impala_common.errors import ImpalaError
from impala_common.process.own_modules import python_command
from impala_common.process.passed_objects import ObjectMemory
from impala_common.run.run_directory import RunDirectory
from impala_server.local.process import LocalProcess, client_options

_LOG = logging.getLogger(__name__)
_FILMING_S = 10.0
_NICE = 14  # beside two busy processes Linux gives it about 4 % of a core; at 19 only 1.5 %


class LocalEvaluator:
    """The evaluator of this machine, if the settings want one. Owned by the main thread."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        address: str,
        objects: ObjectMemory | None = None,
    ) -> None:
        """Prepares an evaluator for the learner at `address`; arguments as LocalActors'."""
        self._process: LocalProcess | None = None
        self._leave_s = 0.0
        if config.evaluation.eval_interval_steps:
            path = run.log_path / "evaluator.log"
            self._leave_s = _FILMING_S if config.evaluation.eval_video_every else 0.0
            command = _command(config, run, address)
            self._process = LocalProcess("evaluator", command, path, objects)

    def start(self) -> None:
        """Starts it."""
        if self._process is not None:
            self._process.start()

    def check(self) -> None:
        """Replaces it if it died; gives it up if it cannot work."""
        if self._process is None:
            return
        try:
            self._process.check()
        except (ImpalaError, OSError) as error:
            _LOG.warning("training goes on without evaluation: %s", error)
            self._process = None

    def terminate(self, is_run_over: bool = False) -> None:
        """Sends SIGTERM; after the end of the run it may finish a video first."""
        if self._process is None:
            return
        if is_run_over:
            self._process.wait(self._leave_s)
        self._process.terminate()

    def join(self, timeout_s: float) -> None:
        """Waits for it; kills it when time is up. It is not started again."""
        if self._process is not None:
            self._process.join(timeout_s)
            self._process = None


def _command(config: TrainConfig, run: RunDirectory, address: str) -> list[str]:
    command = python_command("impala_actor.evaluator_cli")
    command += ["--evaluator-id", "evaluator", "--verbose", "--nice", str(_NICE)]
    env = config.evaluation.eval_env or config.environment.env
    if config.evaluation.eval_video_every:
        command += ["--record-dir", str(run.path.absolute())]
        command += ["--record-every", str(config.evaluation.eval_video_every)]
    return command + client_options(config, address, env, is_evaluator=True)
