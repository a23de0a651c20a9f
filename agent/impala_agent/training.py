"""One call of `IMPALA.train`: writes the agent's state to a run's folder, trains, reads it back.

A learner resumes from the newest checkpoint of its folder, so the agent's state is written as that
checkpoint; afterwards the learner's last checkpoint becomes the agent's state.

A thread of its own talks to learner and actors. Python raises KeyboardInterrupt anywhere in the
main thread; there, `run` only waits and calls the callbacks. The interrupt sets an event, and the
training's thread ends all processes in order.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from impala_agent.agent_files import write_state
from impala_agent.argument_types import as_count, as_kind
from impala_agent.callback_loop import CallbackLoop
from impala_agent.callbacks import Callback
from impala_agent.own_learner import OwnLearner
from impala_agent.results import TrainResult, make_train_result
from impala_agent.seed_settings import replace_settings
from impala_common.config import TrainConfig
from impala_common.errors import ConfigError, ImpalaError
from impala_common.process.passed_objects import Kind, ObjectMemory, has_object_memory
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server.local.training import LocalTraining
from impala_server.messages import LearnerStatus
from impala_server.progress import ProgressDisplay

_NUM_EVALUATIONS = 10  # of a training with an eval_env, by default
_POLL_S = 0.1
_STOP_S = 60.0  # twice the limit of an ordered end


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
        title = f"IMPALA {config.environment.env}"
        console = Console(stderr=True, quiet=is_quiet)
        self._display = ProgressDisplay(self.config.job.total_steps, title, console)
        self._stack = ExitStack()
        self._local: LocalTraining | None = None
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._train, name="impala-training")

    def __enter__(self) -> Self:
        """Locks the run's folder and writes the learner's initial checkpoint."""
        with ExitStack() as stack:
            stack.enter_context(self._run.lock())
            require_own_run(self._run, self._own)
            if not self._own.is_fresh:  # else the learner builds the same state from the seed
                write_state(self._run, self.config, *self._own.export())
            self._own.run_path = self._run.path
            memory = None
            if self._objects or has_object_memory():  # it passes the module search path as well
                memory = ObjectMemory(self._objects)
                stack.callback(memory.close)
            self._local = LocalTraining(
                self.config, self._run, objects=memory, has_log_files=True, log_level="WARNING"
            )
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
        """Trains to the end; all processes have ended by then. See `IMPALA.train`.

        A KeyboardInterrupt meanwhile requests an ordered end, which takes some seconds; a second
        one is ignored, because the checkpoint is being written. The error of a callback ends the
        training in order and is raised.

        Raises:
          ImpalaError: learner or actors failed; the text has the reason.
        """
        try:
            is_interrupted = self._wait()
        except BaseException:
            self._callbacks.end(self.status, None)
            raise
        result = make_train_result(
            self.status, is_interrupted, self._run.path, self._run.checkpoints_path
        )
        self._callbacks.end(self.status, result)
        return result

    def _wait(self) -> bool:
        """Starts the training's thread and waits for its end; returns whether interrupted."""
        is_interrupted = False
        self._thread.start()
        try:
            while True:
                try:
                    while not self._ended.wait(_POLL_S):
                        self._callbacks.tick(self.status, self._stop.set)
                    break
                except KeyboardInterrupt:
                    is_interrupted = True
                    self._stop.set()
        finally:
            self._stop.set()
            while self._thread.is_alive():
                with contextlib.suppress(KeyboardInterrupt):
                    self._thread.join(_POLL_S)
        if self._error is not None:
            raise self._error
        return is_interrupted

    def _train(self) -> None:
        assert self._local is not None
        try:
            with self._display:
                self._local.run(self._display, self._stop.is_set)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    @property
    def status(self) -> LearnerStatus:
        """The learner's newest status."""
        assert self._local is not None
        return self._local.status

    def wait_for_address(self, timeout_s: float) -> str:
        """Waits until the learner listens; returns its address. From any thread.

        Raises:
          ImpalaError: it ended before, or did not listen in time.
        """
        assert self._local is not None
        for _ in range(max(1, int(timeout_s / _POLL_S))):
            if self._local.is_bound.wait(_POLL_S) or self._ended.is_set():
                break
        if self._local.address is None or self._ended.is_set():
            raise ImpalaError(f"the learner did not listen within {timeout_s:g} s")
        return self._local.address

    def stop(self) -> None:
        """Ends the training in order and returns when all processes have ended; from any thread."""
        self._stop.set()
        self._ended.wait(_STOP_S)

    def take_over(self) -> OwnLearner:
        """Returns the agent's state after training: the newest checkpoint, if there is one."""
        store = CheckpointStore(self._run.checkpoints_path)
        if not store.names():
            return self._own
        return self._own.restored(store.load_newest(), self._run.path)


def _is_same_folder(path: Path, other: Path | None) -> bool:
    try:
        return other is not None and os.path.samefile(path, other)
    except FileNotFoundError:  # the other one was removed
        return False


def require_own_run(run: RunDirectory, own: OwnLearner) -> None:
    """Raises ConfigError if the folder has a run other than that of the agent's state."""
    if run.holds_run() and not _is_same_folder(run.path, own.run_path):
        raise ConfigError(
            "run_dir",
            str(run.path),
            "a new folder",
            "it holds a run; go on with it by load(run_dir) before, or name another folder",
        )
