"""One call of `IMPALA.train`: writes the agent's state to a run's folder, trains, reads it back.

A learner resumes from the newest checkpoint of its folder, so the agent's state is written as that
checkpoint; afterwards the learner's last checkpoint becomes the agent's state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from impala_agent.agent_files import write_state
from impala_agent.argument_types import as_count, as_kind
from impala_agent.background_training import BackgroundTraining
from impala_agent.callback_loop import CallbackLoop
from impala_agent.callbacks import Callback
from impala_agent.own_learner import OwnLearner
from impala_agent.results import TrainResult, make_train_result
from impala_agent.seed_settings import replace_settings
from impala_common.config import TrainConfig
from impala_common.errors import ConfigError
from impala_common.process.passed_objects import Kind, ObjectMemory
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server.messages import LearnerStatus

_NUM_EVALUATIONS = 10  # of a training with an eval_env, by default


class Training:
    """A context that locks the run's folder during a training. Made by the agent.

    Attributes:
      config: all settings of this training.
    """

    def __init__(
        self,
        config: TrainConfig,
        own: OwnLearner,
        run_dir: Path,
        objects: Mapping[tuple[Kind, str], bytes],
        *,
        num_train_steps: int,
        log_interval: float | None,
        save_interval: int | None,
        eval_interval: int | None,
        num_eval_episodes: int,
        eval_env: str,
        is_quiet: bool,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Prepares; nothing is written yet. Arguments: see `IMPALA.train`.

        `eval_env` is the environment of evaluations; empty: not given.
        """
        changes: dict[str, Any] = {}  # Any: settings
        if log_interval is not None:
            changes["log_interval_s"] = as_kind("log_interval", log_interval, float)
        if save_interval is not None:
            changes["checkpoint_interval_steps"] = as_kind("save_interval", save_interval, int)
        evaluation: dict[str, Any] = {"eval_env": eval_env} if eval_env else {}  # Any: settings
        if eval_interval is None and eval_env and not config.evaluation.eval_interval_steps:
            eval_interval = max(1, num_train_steps // _NUM_EVALUATIONS)
        if eval_interval is not None:
            evaluation["eval_interval_steps"] = as_kind("eval_interval", eval_interval, int)
            evaluation["eval_interval_episodes"] = as_count("num_eval_episodes", num_eval_episodes)
        trained_steps = own.state.counters.trained_steps
        self.config = replace_settings(
            config,
            job={"total_steps": trained_steps + num_train_steps},
            checkpoint=changes,
            evaluation=evaluation,
        )
        self._own = own
        self._run = RunDirectory(run_dir)
        self._callbacks = CallbackLoop(callbacks, self.config, self._run)
        self._objects = dict(objects)
        self._is_quiet = is_quiet
        self._stack = ExitStack()
        self._background: BackgroundTraining | None = None

    def __enter__(self) -> Self:
        """Locks the run's folder and writes the learner's initial checkpoint."""
        with ExitStack() as stack:
            stack.enter_context(self._run.lock())
            require_own_run(self._run, self._own)
            if not self._own.is_fresh:  # else the learner builds the same state from the seed
                write_state(self._run, self.config, *self._own.export())
            self._own.run_path = self._run.path
            memory = ObjectMemory(self._objects)
            stack.callback(memory.close)
            self._background = BackgroundTraining(self.config, self._run, memory, self._is_quiet)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_trace: TracebackType | None,
    ) -> None:
        """Releases the folder."""
        self._stack.close()

    def run(self) -> TrainResult:
        """Trains to the end; see `IMPALA.train`."""
        background = self._background
        assert background is not None
        try:
            status = background.run(
                lambda: self._callbacks.tick(background.status, background.request_stop)
            )
        except BaseException:
            self._callbacks.end(background.status, None)
            raise
        result = make_train_result(
            status, background.is_interrupted, self._run.path, self._run.checkpoints_path
        )
        self._callbacks.end(status, result)
        return result

    @property
    def status(self) -> LearnerStatus:
        """The learner's newest status."""
        assert self._background is not None
        return self._background.status

    def wait_for_address(self, timeout_s: float) -> str:
        """Waits until the learner listens; returns its address. From any thread.

        Raises:
          ImpalaError: it ended before, or did not listen in time.
        """
        assert self._background is not None
        return self._background.wait_for_address(timeout_s)

    def stop(self) -> None:
        """Ends the training in order and returns when all processes have ended; from any thread."""
        assert self._background is not None
        self._background.stop()

    def take_over(self) -> OwnLearner:
        """Returns the agent's state after training: the newest checkpoint, if there is one."""
        store = CheckpointStore(self._run.checkpoints_path)
        if not store.names():
            return self._own
        return self._own.restored(store.load_newest(), self._run.path)


def require_own_run(run: RunDirectory, own: OwnLearner) -> None:
    """Raises ConfigError if the folder has a run other than that of the agent's state."""
    if run.holds_run() and (own.run_path is None or not os.path.samefile(run.path, own.run_path)):
        raise ConfigError(
            "run_dir",
            str(run.path),
            "a new folder",
            "it holds a run; go on with it by load(run_dir) before, or name another folder",
        )
