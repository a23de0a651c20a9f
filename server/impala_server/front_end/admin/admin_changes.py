"""AdminChanges: the methods of `impala_rl.v1.AdminService` that change something.

They run on the front end's event loop. Each handler is its gRPC method, wrapped by `change`: one
request id takes effect once, and an audit line is written. A handler passes its change to the
learner (over its pipe) or makes it in the front end's own tables.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from impala_common.errors import IllegalTransitionError, InvalidRequestError
from impala_common.run.checkpoints import CheckpointStore
from impala_rl.v1 import admin_pb2 as pb
from impala_rl.v1 import admin_pb2_grpc
from impala_server.front_end.admin.admin_journal import LONG_S, AdminJournal, Done, change
from impala_server.front_end.admin.admin_views import pack_checkpoint, pack_header, pack_state
from impala_server.front_end.learner_link import OpenRun
from impala_server.front_end.monitoring.server_facts import ServerFacts

_MAX_TEXT = 200
_LEVELS = {pb.LogLevel.Value(f"LOG_LEVEL_{name}"): name for name in
           ("DEBUG", "INFO", "WARNING", "ERROR")}  # fmt: skip


class AdminChanges(admin_pb2_grpc.AdminServiceServicer):
    """The changes of the control plane; `AdminServicer` adds the queries."""

    def __init__(self, facts: ServerFacts, journal: AdminJournal) -> None:
        """Makes changes to the server that `facts` describe, through `journal`."""
        self.journal = journal
        self._facts = facts
        self._store = CheckpointStore(facts.run.checkpoints_path)

    @change()
    async def Pause(self, unused_request: pb.PauseRequest) -> Done:  # noqa: N802
        """Stops updates."""
        return await self._steer("pause", pb.PauseResponse)

    @change()
    async def Resume(self, unused_request: pb.ResumeRequest) -> Done:  # noqa: N802
        """Goes on with updates."""
        return await self._steer("resume", pb.ResumeResponse)

    @change(LONG_S)
    async def SaveCheckpoint(self, request: pb.SaveCheckpointRequest) -> Done:  # noqa: N802
        """Writes a checkpoint and answers when it is durable."""
        result = await self._call("checkpoint", name=request.name)
        info = await asyncio.to_thread(pack_checkpoint, self._store, result["name"])
        response = pb.SaveCheckpointResponse(checkpoint=info, is_new=result["is_new"])
        return Done(response, {"new": result["name"]})

    @change(LONG_S)
    async def Rollback(self, request: pb.RollbackRequest) -> Done:  # noqa: N802
        """Goes back to a checkpoint."""
        result = await self._call("rollback", name=request.name)
        response = pb.RollbackResponse(
            learner=pack_header(self._facts),
            state=self._state(),
            trained_steps_before=result["steps_before"],
            saved_as=result["saved_as"],
        )
        response.learner.trained_steps = steps = result["trained_steps"]
        response.learner.policy_version = result["policy_version"]
        return Done(response, {"old": result["steps_before"], "new": steps})

    @change()
    async def SetParameter(self, request: pb.SetParameterRequest) -> Done:  # noqa: N802
        """Sets one parameter of training."""
        result = await self._call("set", name=request.name, value=request.value)
        response = pb.SetParameterResponse(
            parameter=pb.Parameter(**result["parameter"]),
            value_before=result["value_before"],
            trained_steps=result["trained_steps"],
        )
        return Done(response, {"old": result["value_before"], "new": result["parameter"]["value"]})

    @change()
    async def EvictActor(self, request: pb.EvictActorRequest) -> Done:  # noqa: N802
        """Ends the session of an actor, and bans it where asked."""
        if len(request.text) > _MAX_TEXT:
            raise InvalidRequestError(
                f"text: expected at most {_MAX_TEXT} characters, got {len(request.text)}"
            )
        text = request.text if request.text.isprintable() else ""
        sessions = self._open_run().sessions
        was_connected = sessions.evict(request.actor_id, text, request.is_ban)
        response = pb.EvictActorResponse(was_connected=was_connected)
        return Done(response, {"old": "connected" if was_connected else "not connected"})

    @change()
    async def UnbanActor(self, request: pb.UnbanActorRequest) -> Done:  # noqa: N802
        """Lifts a ban."""
        self._open_run().sessions.unban(request.actor_id)
        return Done(pb.UnbanActorResponse(), {})

    @change(LONG_S)
    async def Drain(self, unused_request: pb.DrainRequest) -> Done:  # noqa: N802
        """Takes no more unrolls and saves what is trained."""
        before = self._facts.link.status.state
        result = await self._call("drain")
        response = pb.DrainResponse(
            learner=pack_header(self._facts), state=self._state(), checkpoint=result["checkpoint"]
        )
        return Done(response, {"old": before, "new": result["checkpoint"]})

    @change()
    async def Shutdown(self, unused_request: pb.ShutdownRequest) -> Done:  # noqa: N802
        """Ends the learner server in order."""
        before = self._facts.link.status.state
        await self._call("shutdown")
        return Done(pb.ShutdownResponse(learner=pack_header(self._facts)), {"old": before})

    @change()
    async def SetLogLevel(self, request: pb.SetLogLevelRequest) -> Done:  # noqa: N802
        """Sets the level of the logs of all server processes."""
        level = _LEVELS.get(request.level)
        if level is None:
            raise InvalidRequestError(f"level: expected one of {', '.join(_LEVELS.values())}")
        root = logging.getLogger()
        before = logging.getLevelName(root.level)
        await self._call("log_level", level=level)
        root.setLevel(level)
        name = before if before in _LEVELS.values() else "UNSPECIFIED"
        response = pb.SetLogLevelResponse(level_before=f"LOG_LEVEL_{name}")
        return Done(response, {"old": before, "new": level})

    @change(LONG_S)
    async def Profile(self, request: pb.ProfileRequest) -> Done:  # noqa: N802
        """Records the next updates with a profiler."""
        result = await self._call("profile", num_updates=request.update_count)
        response = pb.ProfileResponse(path=result["path"], total_bytes=result["num_bytes"])
        return Done(response, {"new": result["path"]})

    @change()
    async def ClearBest(self, unused_request: pb.ClearBestRequest) -> Done:  # noqa: N802
        """Sets the best checkpoint aside."""
        result = await self._call("clear_best")
        return Done(pb.ClearBestResponse(**result), {"new": result["name"]})

    async def _call(self, command: str, **arguments: Any) -> dict[str, Any]:  # Any: JSON
        return await self._facts.link.calls.call(command, **arguments)

    def _open_run(self) -> OpenRun:
        run = self._facts.link.run
        if run is None:
            raise IllegalTransitionError("not yet: the learner waits for its first actor")
        return run

    def _state(self) -> Any:  # Any: the stubs have no type for enum values
        return pack_state(self._facts.link.status.state)

    async def _steer(self, command: str, response: Any) -> Done:  # Any: a message class
        before = self._facts.link.status.state
        await self._call(command)
        after = self._facts.link.status.state
        message = response(learner=pack_header(self._facts), state=self._state())
        return Done(message, {"old": before, "new": after})
