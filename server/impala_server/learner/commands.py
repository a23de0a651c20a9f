"""AdminCommands: carries out commands of administrators and evaluators between two updates.

Owned by the controller and called on its thread only. Each command comes as one
Call and gets one answer with the same id. Those that
take longer are looked after by `tick`, so that the controller goes on meanwhile.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from impala_common.errors import (
    CheckpointWriteError,
    IllegalTransitionError,
    ImpalaError,
    InvalidRequestError,
    LearnerUnavailableError,
)
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server.learner.batch_queue import BatchQueue
from impala_server.learner.checkpoint_writer import SaveTicket
from impala_server.learner.control import State, StateMachine
from impala_server.learner.evaluations import Evaluations
from impala_server.learner.learner import Learner
from impala_server.learner.parameters import show
from impala_server.learner.profiles import profile_path
from impala_server.messages import (
    Answer,
    Call,
    CallFailed,
    Drain,
    LogLevelSet,
    Message,
    PolicyLagSet,
    ShutdownAsked,
    WithdrawCall,
)

_LOG = logging.getLogger(__name__)
_PROFILE_TIMEOUT_S = 60.0
_DRAIN_TIMEOUT_S = 15.0
_DRAIN_QUIET_S = 0.3
_MAX_PROFILED_UPDATES = 100
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

Result = dict[str, Any]
"""A command's answer. Any: JSON."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CommandTools:
    """The parts of the controller that commands use; made by the controller.

    Attributes:
      machine: the learner's state.
      queue: full slots on their way to the learner threads.
      store: the run's checkpoints.
      evaluations: the candidates of this learner life.
      request_save: requests a checkpoint, named or "" for one named by its step.
      record: writes a line of metrics.
      tell_front_end: sends the front end a message.
      tell_supervisor: sends the supervisor a message.
      tell_status: sends the front end the present status.
    """

    machine: StateMachine
    queue: BatchQueue
    store: CheckpointStore
    evaluations: Evaluations
    request_save: Callable[[str], SaveTicket]
    record: Callable[[dict[str, float]], None]
    tell_front_end: Callable[[Message], None]
    tell_supervisor: Callable[[Message], None]
    tell_status: Callable[[], None]


class _Pending(NamedTuple):
    """A command that is not answered yet; `poll` returns its result once it has one."""

    call_id: int
    poll: Callable[[], Result | None]


class AdminCommands:
    """Commands by name.

    Attributes:
      learner: the learner that commands change; set by the controller when it has built one.
    """

    def __init__(self, tools: CommandTools, run: RunDirectory) -> None:
        """Carries out commands with `tools` in the folder of `run`."""
        self._tools = tools
        self._run = run
        self.learner: Learner | None = None
        self._pending: list[_Pending] = []
        self._commands: dict[str, Callable[..., Result | Callable[[], Result | None]]] = {
            "pause": self._pause,
            "resume": self._resume,
            "checkpoint": self._checkpoint,
            "rollback": self._rollback,
            "set": self._set,
            "parameters": self._parameters,
            "drain": self._drain,
            "shutdown": self._shutdown,
            "log_level": self._log_level,
            "profile": self._profile,
            "clear_best": tools.evaluations.clear_best,
            "report_evaluation": tools.evaluations.report,
        }

    def begin(self, call: Call) -> None:
        """Carries out one command, or begins to."""

        def carry_out() -> Result | None:
            outcome = self._commands[call.command](**call.arguments)
            if not callable(outcome):
                return outcome
            self._pending.append(_Pending(call.call_id, outcome))
            return None

        self._answer(call.call_id, carry_out)

    def skip_withdrawn(self, messages: Sequence[Message]) -> list[Message]:
        """Returns the messages without those calls that a later message withdraws.

        A withdrawn call is answered too, since the front end counts unanswered ones. A call
        that has begun goes on.
        """
        withdrawn = {one.call_id for one in messages if isinstance(one, WithdrawCall)}
        left: list[Message] = []
        for message in messages:
            if isinstance(message, Call) and message.call_id in withdrawn:
                failure = CallFailed(message.call_id, LearnerUnavailableError.reason, "withdrawn")
                self._tools.tell_front_end(failure)
            elif not isinstance(message, WithdrawCall):
                left.append(message)
        return left

    def tick(self) -> None:
        """Answers commands under way whose results are there."""
        pending, self._pending = self._pending, []
        for one in pending:
            if not self._answer(one.call_id, one.poll):
                self._pending.append(one)

    def _answer(self, call_id: int, work: Callable[[], Result | None]) -> bool:
        """Sends the result or error of `work`; returns False if there is none yet."""
        try:
            result = work()
        except ImpalaError as error:
            failure = CallFailed(call_id, error.reason, str(error))
        except Exception as error:  # a bug in a command must not end the run
            _LOG.exception("a command of the administrator failed")
            text = f"{type(error).__name__} in the learner"
            failure = CallFailed(call_id, ImpalaError.reason, text)
        else:
            if result is None:
                return False
            self._tools.tell_status()
            state = self._tools.machine.state.value
            self._tools.tell_front_end(Answer(call_id, state, result))
            return True
        self._tools.tell_front_end(failure)
        return True

    @property
    def _learner(self) -> Learner:
        assert self.learner is not None, "guarded by the state machine"
        return self.learner

    def _pause(self) -> Result:
        self._tools.machine.move("pause")
        self._learner.gate.shut()
        return {}

    def _resume(self) -> Result:
        self._tools.machine.require("resume")
        self._learner.resume()
        self._tools.machine.move("resume")
        return {}

    def _checkpoint(self, name: str) -> Callable[[], Result | None]:
        self._tools.machine.require("checkpoint")
        ticket = self._tools.request_save(name)

        def poll() -> Result | None:
            saved = ticket.poll()
            return None if saved is None else {"name": saved.name, "is_new": saved.is_new}

        return poll

    def _rollback(self, name: str) -> Result:
        machine, store = self._tools.machine, self._tools.store
        machine.require("rollback")
        store.require_known(name)
        checkpoint = store.load(name)
        learner = self._learner
        learner.gate.shut()  # no update may run between the rollback and its checkpoint
        try:
            steps_before = learner.roll_back(checkpoint)
            # Save first, then rename later checkpoints: one that can be resumed from always exists.
            saved_as = self._tools.request_save("").wait().name
            set_aside = store.set_aside_after(checkpoint.step)
        except CheckpointWriteError as error:
            raise CheckpointWriteError(
                f"gone back to {name}, but not saved: a learner started again would go on from "
                f"the newest checkpoint; make room, then roll back again ({error})"
            ) from error
        finally:
            if machine.state is State.RUNNING:
                learner.gate.open()
        _LOG.warning("rolled back to %s; set aside: %s", name, ", ".join(set_aside) or "nothing")
        return {
            "steps_before": steps_before,
            "trained_steps": checkpoint.step,
            "policy_version": store.describe(saved_as).state["counters"]["policy_version"],
            "saved_as": saved_as,
        }

    def _set(self, name: str, value: str) -> Result:
        self._tools.machine.require("set")
        learner = self._learner
        before = learner.set_parameter(name, value)
        now = learner.state.parameters.value_of(name)
        lag = learner.state.config.rollout.max_policy_lag
        self._tools.tell_front_end(PolicyLagSet(lag))
        number = float("inf") if now is None else float(now)  # infinite: null in the line
        self._tools.record({metrics.parameter_metric(name): number})
        return {
            "parameter": next(
                one for one in learner.state.parameters.to_json() if one["name"] == name
            ),
            "value_before": show(before),
            "trained_steps": learner.state.counters.trained_steps,
        }

    def _parameters(self) -> Result:
        if self.learner is None:
            raise IllegalTransitionError("not yet: the learner waits for its first actor")
        return {"parameters": self._learner.state.parameters.to_json()}

    def _drain(self) -> Callable[[], Result | None]:
        was_paused = self._tools.machine.state is State.PAUSED
        self._tools.machine.move("drain")
        self._tools.tell_front_end(Drain("stopping"))
        now_s = time.monotonic()
        deadline_s = now_s if was_paused else now_s + _DRAIN_TIMEOUT_S
        quiet_since_s = now_s
        ticket: SaveTicket | None = None

        def poll() -> Result | None:
            nonlocal quiet_since_s, ticket
            if ticket is not None:
                saved = ticket.poll()
                return None if saved is None else {"checkpoint": saved.name}
            now_s = time.monotonic()
            if not self._tools.queue.is_idle:
                quiet_since_s = now_s
            if now_s - quiet_since_s < _DRAIN_QUIET_S and now_s < deadline_s:
                return None
            ticket = self._tools.request_save("")
            return None

        return poll

    def _shutdown(self) -> Result:
        self._tools.machine.require("shutdown")
        self._tools.tell_supervisor(ShutdownAsked())
        return {}

    def _log_level(self, level: str) -> Result:
        if level not in _LEVELS:
            raise InvalidRequestError(f"level: expected one of {', '.join(_LEVELS)}")
        logging.getLogger().setLevel(level)
        self._tools.tell_supervisor(LogLevelSet(level))
        return {}

    def _profile(self, num_updates: int) -> Callable[[], Result | None]:
        self._tools.machine.require("profile")
        if not 1 <= num_updates <= _MAX_PROFILED_UPDATES:
            raise InvalidRequestError(
                f"update_count: expected 1 to {_MAX_PROFILED_UPDATES}, got {num_updates}"
            )
        learner = self._learner
        path = profile_path(
            self._run.profiles_path.absolute(), learner.state.counters.policy_version
        )
        recording = learner.profiler.request(num_updates, path)
        deadline_s = time.monotonic() + _PROFILE_TIMEOUT_S

        def poll() -> Result | None:
            if recording.is_done.is_set():
                if recording.error:
                    raise LearnerUnavailableError(f"no profile: {recording.error}")
                return {"path": str(path), "num_bytes": path.stat().st_size}
            if time.monotonic() > deadline_s:
                with learner.update_lock:
                    learner.profiler.cancel(recording)
                raise LearnerUnavailableError(
                    f"fewer than {num_updates} updates came within {_PROFILE_TIMEOUT_S:g} s"
                )
            return None

        return poll
