"""Changes an administrator asks for: each happens once, and each leaves an audit line.

Runs on the front end's event loop, between the servicer and what carries a
change out: the learner (over its pipe) or the front end's own tables. Order:
request id, expected run, the change, the audit line, the answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, NamedTuple

from google.protobuf.message import Message

from impala_common.errors import (
    ImpalaError,
    InvalidRequestError,
    LearnerUnavailableError,
    RunMismatchError,
)
from impala_common.process.logs import printable
from impala_common.rpc.limits import UNARY_DEADLINE_S
from impala_common.run.checkpoints import CheckpointStore
from impala_rl.v1 import admin_pb2 as pb
from impala_server.front_end.admin.admin_views import pack_checkpoint, pack_header, pack_state
from impala_server.front_end.admin.audit_log import AuditLog
from impala_server.front_end.admin.request_cache import RequestCache
from impala_server.front_end.learner_link import OpenRun
from impala_server.front_end.monitoring.server_facts import ServerFacts

_LOG = logging.getLogger(__name__)
_LONG_S = 120.0
_MAX_TEXT = 200
_LEVELS = {pb.LogLevel.Value(f"LOG_LEVEL_{name}"): name for name in
           ("DEBUG", "INFO", "WARNING", "ERROR")}  # fmt: skip


class _Done(NamedTuple):
    """What a change answers, and what its audit line says beside the request."""

    response: Any  # Any: the response message of the method
    facts: dict[str, Any]


class AdminChanges:
    """Makes changes by the name of their method."""

    NAMES: ClassVar[tuple[str, ...]] = (
        "Pause", "Resume", "SaveCheckpoint", "Rollback", "SetParameter", "EvictActor",
        "UnbanActor", "Drain", "Shutdown", "SetLogLevel", "Profile", "ClearBest",
    )  # fmt: skip
    """All methods that change something."""

    def __init__(self, facts: ServerFacts, audit: AuditLog, who: str) -> None:
        """Changes what `facts` speak of.

        Args:
          facts: the server.
          audit: where each change is written down.
          who: by what right callers come, such as "admin token".
        """
        self._facts = facts
        self._audit = audit
        self._who = who
        self._cache = RequestCache(time.monotonic)
        self._store = CheckpointStore(facts.run.checkpoints_path)
        self._changes: dict[str, Callable[[Any], Awaitable[_Done]]] = {
            "Pause": lambda unused: self._steer("pause", pb.PauseResponse),
            "Resume": lambda unused: self._steer("resume", pb.ResumeResponse),
            "SaveCheckpoint": self._save_checkpoint,
            "Rollback": self._roll_back,
            "SetParameter": self._set_parameter,
            "EvictActor": self._evict,
            "UnbanActor": self._unban,
            "Drain": self._drain,
            "Shutdown": self._shut_down,
            "SetLogLevel": self._set_log_level,
            "Profile": self._profile,
            "ClearBest": self._clear_best,
        }

    async def make(self, name: str, request: Any, peer: str) -> Any:  # Any: messages of `name`
        """Makes a change and returns its response; raises ImpalaError where it is refused."""
        is_long = name in ("SaveCheckpoint", "Rollback", "Drain", "Profile")
        is_begun = False

        async def change() -> Any:
            nonlocal is_begun
            is_begun = True
            return await self._make_once(name, request, peer)

        content = name.encode() + b"\0" + request.SerializeToString(deterministic=True)
        request_id = request.header.request_id
        try:
            return await self._cache.once(
                request_id, content, change, _LONG_S if is_long else UNARY_DEADLINE_S
            )
        except ImpalaError as error:
            if not is_begun and not isinstance(error, LearnerUnavailableError):
                # Refused before it was one: a bad request id, or one used before.
                await self._write(name, request, peer, error.reason, text=str(error))
            raise

    async def _make_once(self, name: str, request: Any, peer: str) -> Any:
        try:
            self._require_expected_run(request.header.expected_run_id)
            done = await self._changes[name](request)
        except ImpalaError as error:
            await self._write(name, request, peer, error.reason, text=str(error))
            raise
        except Exception:
            await self._write(name, request, peer, "INTERNAL")
            raise
        await self._write(name, request, peer, "ok", **done.facts)
        facts = _arguments_of(request) | done.facts
        _LOG.warning("administrator: %s %s", name, printable(json.dumps(facts)) if facts else "")
        return done.response

    async def _write(
        self, name: str, request: Message, peer: str, outcome: str, **facts: Any
    ) -> None:
        header: pb.MutationHeader = getattr(request, "header")  # noqa: B009 (not in Message)
        await self._audit.write(
            f"{self._who} {peer}",
            name,
            outcome,
            request_id=header.request_id,
            arguments=_arguments_of(request),
            **facts,
        )

    def _require_expected_run(self, expected: int) -> None:
        run = self._facts.link.run
        actual = run.learner_run_id if run is not None else 0
        if expected not in (0, actual):
            raise RunMismatchError(
                f"meant for learner_run_id {expected:016x}, but {actual:016x} runs: it was "
                "restarted; nothing was done"
            )

    async def _call(self, command: str, **arguments: Any) -> dict[str, Any]:  # Any: JSON
        return await self._facts.link.calls.call(command, **arguments)

    def _open_run(self) -> OpenRun:
        run = self._facts.link.run
        if run is None:
            raise LearnerUnavailableError("the learner waits for its first actor")
        return run

    def _state(self) -> Any:  # Any: the stubs have no type for enum values
        return pack_state(self._facts.link.status["state"])

    async def _steer(self, command: str, response: Any) -> _Done:  # Any: a message class
        before = self._facts.link.status["state"]
        await self._call(command)
        after = self._facts.link.status["state"]
        message = response(learner=pack_header(self._facts), state=self._state())
        return _Done(message, {"old": before, "new": after})

    async def _save_checkpoint(self, request: pb.SaveCheckpointRequest) -> _Done:
        result = await self._call("checkpoint", name=request.name)
        info = await asyncio.to_thread(pack_checkpoint, self._store, result["name"])
        response = pb.SaveCheckpointResponse(checkpoint=info, is_new=result["is_new"])
        return _Done(response, {"new": result["name"]})

    async def _roll_back(self, request: pb.RollbackRequest) -> _Done:
        result = await self._call("rollback", name=request.name)
        response = pb.RollbackResponse(
            learner=pack_header(self._facts),
            state=self._state(),
            trained_steps_before=result["steps_before"],
            saved_as=result["saved_as"],
        )
        response.learner.trained_steps = steps = result["trained_steps"]
        response.learner.policy_version = result["policy_version"]
        return _Done(response, {"old": result["steps_before"], "new": steps})

    async def _set_parameter(self, request: pb.SetParameterRequest) -> _Done:
        result = await self._call("set", name=request.name, value=request.value)
        response = pb.SetParameterResponse(
            parameter=pb.Parameter(**result["parameter"]),
            value_before=result["value_before"],
            trained_steps=result["trained_steps"],
        )
        return _Done(response, {"old": result["value_before"], "new": result["parameter"]["value"]})

    async def _evict(self, request: pb.EvictActorRequest) -> _Done:
        if len(request.text) > _MAX_TEXT:
            raise InvalidRequestError(
                f"text: expected at most {_MAX_TEXT} characters, got {len(request.text)}"
            )
        text = request.text if request.text.isprintable() else ""
        sessions = self._open_run().sessions
        was_connected = sessions.evict(request.actor_id, text, request.is_ban)
        response = pb.EvictActorResponse(was_connected=was_connected)
        return _Done(response, {"old": "connected" if was_connected else "not connected"})

    async def _unban(self, request: pb.UnbanActorRequest) -> _Done:
        self._open_run().sessions.unban(request.actor_id)
        return _Done(pb.UnbanActorResponse(), {})

    async def _drain(self, unused_request: pb.DrainRequest) -> _Done:
        before = self._facts.link.status["state"]
        result = await self._call("drain")
        response = pb.DrainResponse(
            learner=pack_header(self._facts), state=self._state(), checkpoint=result["checkpoint"]
        )
        return _Done(response, {"old": before, "new": result["checkpoint"]})

    async def _shut_down(self, unused_request: pb.ShutdownRequest) -> _Done:
        before = self._facts.link.status["state"]
        await self._call("shutdown")
        return _Done(pb.ShutdownResponse(learner=pack_header(self._facts)), {"old": before})

    async def _set_log_level(self, request: pb.SetLogLevelRequest) -> _Done:
        level = _LEVELS.get(request.level)
        if level is None:
            raise InvalidRequestError(f"level: expected one of {', '.join(_LEVELS.values())}")
        root = logging.getLogger()
        before = logging.getLevelName(root.level)
        await self._call("log_level", level=level)
        root.setLevel(level)
        name = before if before in _LEVELS.values() else "UNSPECIFIED"
        response = pb.SetLogLevelResponse(level_before=f"LOG_LEVEL_{name}")
        return _Done(response, {"old": before, "new": level})

    async def _profile(self, request: pb.ProfileRequest) -> _Done:
        result = await self._call("profile", num_updates=request.update_count)
        response = pb.ProfileResponse(path=result["path"], total_bytes=result["num_bytes"])
        return _Done(response, {"new": result["path"]})

    async def _clear_best(self, unused_request: pb.ClearBestRequest) -> _Done:
        result = await self._call("clear_best")
        return _Done(pb.ClearBestResponse(**result), {"new": result["name"]})


def _arguments_of(request: Message) -> dict[str, Any]:
    """Returns what a request asks for beside its header, as JSON."""
    arguments = {}
    for field, value in request.ListFields():
        if field.name == "header":
            continue
        known = field.enum_type.values_by_number if field.enum_type is not None else {}
        arguments[field.name] = known[value].name if value in known else value
    return arguments
