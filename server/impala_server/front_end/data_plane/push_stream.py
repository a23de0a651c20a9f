"""One PushUnrolls stream: hello, unrolls against verdicts, goodbye.

Runs on the front end's event loop, one object per stream. Messages are judged in the order of
arrival, one at a time, so at most `window` of them wait here. learner.proto has the contract.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from impala_common.codec.field_bounds import validate_bounds
from impala_common.errors import (
    InvalidRequestError,
    LearnerUnavailableError,
    StaleSessionError,
)
from impala_common.process import failpoints
from impala_common.process.logs import printable
from impala_common.rpc.limits import HELLO_DEADLINE_S
from impala_rl.v1 import header_pb2, learner_pb2, unroll_pb2
from impala_server.front_end.data_plane.sessions import ActorSession
from impala_server.front_end.data_plane.timed_write import write_in_time
from impala_server.front_end.data_plane.unroll_intake import Outcome, Verdict
from impala_server.front_end.learner_link import LearnerLink, OpenRun

_LOG = logging.getLogger(__name__)
_OUTCOMES: dict[Outcome, Any] = {  # Any: the stubs have no type for enum values
    outcome: learner_pb2.VerdictOutcome.Value(f"VERDICT_OUTCOME_{outcome.name}")
    for outcome in Outcome
}


class PushStream:
    """The server's side of one stream."""

    def __init__(self, link: LearnerLink, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Serves one client, through `context`."""
        self._link = link
        self._context = context

    async def run(self) -> None:
        """Serves the stream until the client leaves or the learner stops.

        Raises:
          InvalidRequestError: the client broke the contract.
          StaleSessionError: the session is not the newest, or of another learner life.
        """
        run, session = await self._hello()
        session.num_streams += 1
        ended = asyncio.create_task(self._wait_for_end(session))
        read: asyncio.Task[Any] | None = None
        try:
            while True:
                read = asyncio.create_task(self._context.read())
                await asyncio.wait({read, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done() or session.over.is_set():
                    await self._end(run, session)
                    return
                request = read.result()
                if request is not grpc.aio.EOF and request.WhichOneof("payload") != "unrolls":
                    validate_bounds(request)  # those of unrolls are the intake's
                if request is grpc.aio.EOF or request.WhichOneof("payload") == "goodbye":
                    _LOG.info("actor %s left", session.actor_id)
                    return
                if request.WhichOneof("payload") != "unrolls":
                    raise InvalidRequestError("expected unrolls or goodbye after hello")
                if not await self._take(run, session, request.unrolls, ended):
                    return
        finally:
            session.num_streams -= 1
            ended.cancel()
            if read is not None:
                read.cancel()

    async def _hello(self) -> tuple[OpenRun, ActorSession]:
        try:
            async with asyncio.timeout(HELLO_DEADLINE_S):
                request: Any = await self._context.read()
        except TimeoutError as error:
            raise InvalidRequestError(f"expected hello within {HELLO_DEADLINE_S:g} s") from error
        if request is grpc.aio.EOF or request.WhichOneof("payload") != "hello":
            raise InvalidRequestError("expected hello as the first message")
        validate_bounds(request)
        run = self._link.open_run_of(request.hello.learner_run_id)
        return run, self._find(run, request.hello.actor)

    async def _take(
        self,
        run: OpenRun,
        session: ActorSession,
        message: unroll_pb2.UnrollBatch,
        ended: asyncio.Task[Any],
    ) -> bool:
        """Judges one message; returns whether the stream goes on."""
        if self._find(run, message.actor) is not session:
            raise InvalidRequestError("the unrolls are of another session than hello was")
        failpoints.hit("push.before_take")
        verdict = run.intake.offer_now(session, message)
        if verdict is None:
            # A task of the intake's own: a disconnect must not stop a message half-way into
            # storage.
            offered = run.intake.start(session, message)
            await asyncio.wait({offered, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not offered.done():
                await self._end(run, session)
                return False
            verdict = offered.result()
        await self._answer(run, message.sequence_number, verdict)
        return True

    async def _answer(self, run: OpenRun, sequence_number: int, verdict: Verdict) -> None:
        response = learner_pb2.PushUnrollsResponse()
        response.verdict.learner.CopyFrom(run.header())
        response.verdict.sequence_number = sequence_number
        response.verdict.outcome = _OUTCOMES[verdict.outcome]
        response.verdict.text = verdict.text
        if failpoints.hit("push.before_ack"):
            raise LearnerUnavailableError("failpoint push.before_ack")
        await write_in_time(self._context, response)
        failpoints.hit("push.after_ack")

    async def _wait_for_end(self, session: ActorSession) -> None:
        """Returns when the learner stops taking unrolls, or stops taking those of this session."""
        waits = [asyncio.create_task(event.wait()) for event in (self._link.ended, session.over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _end(self, run: OpenRun, session: ActorSession) -> None:
        """Tells the client why the stream ends; StaleSessionError if its session was ended."""
        if session.over.is_set():
            raise StaleSessionError(session.over_text)
        await self._drain(run)

    async def _drain(self, run: OpenRun) -> None:
        response = learner_pb2.PushUnrollsResponse()
        response.drain.learner.CopyFrom(run.header())
        response.drain.reason = self._link.drain_reason
        await write_in_time(self._context, response)

    def _find(self, run: OpenRun, actor: header_pb2.ActorHeader) -> ActorSession:
        try:
            return run.sessions.find(actor.actor_id, actor.actor_run_id, actor.session_epoch)
        except StaleSessionError:
            _LOG.info("fenced an old life of actor %s", printable(actor.actor_id))
            raise
