"""One Play stream: hello, observations against actions, goodbye.

Runs on the event loop, one object per stream; policy.proto has the contract. One task reads and one
writes, so that a client that does not read its answers holds up nobody else.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from typing import Any

import grpc
from google.protobuf import duration_pb2

from impala_common.codec.field_bounds import validate_bounds
from impala_common.codec.specs import unpack_environment_spec
from impala_common.errors import InvalidRequestError, RunFinishedError, StaleSessionError
from impala_common.process.logs import printable
from impala_common.rpc.limits import HELLO_DEADLINE_S, MAX_MESSAGE_BYTES, PROTOCOL_VERSION
from impala_policy_server.clients import Client
from impala_policy_server.dispatcher import Dispatcher
from impala_rl.v1 import policy_pb2
from impala_server.front_end.data_plane.sessions import validate_actor_id
from impala_server.front_end.data_plane.timed_write import write_in_time
from impala_server.front_end.listener.protocol_version import validate_protocol_version

_LOG = logging.getLogger(__name__)
_SPARE_ANSWERS = 16
_FINISH_S = 25.0  # longer than the deadline of a write


class PlayStream:
    """The server's side of one stream."""

    def __init__(self, dispatcher: Dispatcher, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Serves one client, through `context`."""
        self._dispatcher = dispatcher
        self._context = context
        self._unsent: collections.deque[policy_pb2.PlayResponse] = collections.deque()
        self._has_unsent = asyncio.Event()
        self._has_room = asyncio.Event()
        self._replaced = asyncio.Event()
        self._has_failed = asyncio.Event()
        self._failure: Exception | None = None
        self._is_goodbye = False
        self._is_last = False

    def send(self, response: policy_pb2.PlayResponse) -> None:
        """Queues a response; the stream reads no further while too many wait."""
        self._unsent.append(response)
        self._has_unsent.set()

    def replace(self) -> None:
        """Ends the stream: a newer one takes its place."""
        self._replaced.set()

    def fail(self, error: Exception) -> None:
        """Ends the stream with an error."""
        self._failure = self._failure or error
        self._has_failed.set()

    async def run(self) -> None:
        """Serves the stream until the client leaves or the server stops.

        Raises:
          InvalidRequestError: the client broke the contract.
          StaleSessionError: a newer life or stream of the client is there.
          ImpalaError: the client cannot take part.
        """
        hello = await self._read_hello()
        environment = unpack_environment_spec(hello.environment)
        dispatcher = self._dispatcher
        try:
            client = await dispatcher.join(self, hello, environment, self._context.peer())
        except RunFinishedError:
            await write_in_time(self._context, self._make_drain())
            return
        _LOG.info("client %s plays %d slots", client.client_id, hello.slot_count)
        self._unsent.appendleft(self._welcome())
        self._has_unsent.set()
        reading = asyncio.create_task(self._read(client))
        writing = asyncio.create_task(self._write())
        events = (self._has_failed, self._replaced, dispatcher.ended)
        ends = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait({reading, writing, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure is not None:
                raise self._failure
            for done in (reading, writing):
                if done.done():
                    done.result()  # raises what ended it
            if self._replaced.is_set():
                raise StaleSessionError(f"a newer stream of client {client.client_id} is open")
            if dispatcher.ended.is_set():
                await self._drain(writing)
        finally:
            dispatcher.leave(client, self, is_goodbye=self._is_goodbye)
            for task in (reading, *ends):
                task.cancel()
            has_left = reading.done() and not reading.cancelled() and not reading.exception()
            await self._finish(writing, has_left and not self._replaced.is_set())

    async def _read_hello(self) -> policy_pb2.PlayHello:
        try:
            async with asyncio.timeout(HELLO_DEADLINE_S):
                request: Any = await self._context.read()
        except TimeoutError as error:
            raise InvalidRequestError(f"expected hello within {HELLO_DEADLINE_S:g} s") from error
        if request is grpc.aio.EOF or request.WhichOneof("payload") != "hello":
            raise InvalidRequestError("expected hello as the first message")
        validate_bounds(request)
        hello: policy_pb2.PlayHello = request.hello
        validate_protocol_version(hello.protocol_version)
        validate_actor_id(hello.client_id)
        if hello.is_greedy and not hello.is_evaluation:
            raise InvalidRequestError("is_greedy: expected with is_evaluation only")
        return hello

    async def _read(self, client: Client) -> None:
        """Reads until the client has left."""
        max_unsent = len(client.places) + _SPARE_ANSWERS
        while True:
            request: Any = await self._context.read()
            if request is grpc.aio.EOF:
                return
            kind = request.WhichOneof("payload")
            if kind == "observations":
                self._dispatcher.take(client, self, request.observations)
            elif kind == "goodbye":
                validate_bounds(request)
                _LOG.info("client %s left", printable(client.client_id))
                self._is_goodbye = True
                return
            else:
                raise InvalidRequestError("expected observations or goodbye after hello")
            while len(self._unsent) > max_unsent:
                self._has_room.clear()
                await self._has_room.wait()

    async def _write(self) -> None:
        while True:
            await self._has_unsent.wait()
            while self._unsent:
                await write_in_time(self._context, self._unsent.popleft())
                self._has_room.set()
            if self._is_last:
                return
            self._has_unsent.clear()

    async def _drain(self, writing: asyncio.Task[None]) -> None:
        """Sends the drain as the last message, after the one that is being written.

        A write must not be cancelled for it: the core takes one at a time.
        """
        self._unsent.clear()
        self._is_last = True
        self.send(self._make_drain())
        await asyncio.wait({writing})

    async def _finish(self, writing: asyncio.Task[None], is_orderly: bool) -> None:
        """Lets the message that is being written go out; in an orderly end what waits, too.

        The core takes one write at a time, the status included: a status sent meanwhile fails, and
        the client would never hear that the stream is over.
        """
        if not is_orderly:
            self._unsent.clear()
        self._is_last = True
        self._has_unsent.set()
        await asyncio.wait({writing}, timeout=_FINISH_S)
        writing.cancel()
        if writing.done() and not writing.cancelled():
            writing.exception()  # retrieved: a client that is gone is no error

    def _make_drain(self) -> policy_pb2.PlayResponse:
        response = policy_pb2.PlayResponse()
        response.drain.reason = self._dispatcher.drain_reason
        return response

    def _welcome(self) -> policy_pb2.PlayResponse:
        timeout = duration_pb2.Duration()
        timeout.FromNanoseconds(int(self._dispatcher.slot_timeout_s * 1e9))
        return policy_pb2.PlayResponse(
            welcome=policy_pb2.PlayWelcome(
                protocol_version=PROTOCOL_VERSION,
                slot_timeout=timeout,
                max_message_bytes=MAX_MESSAGE_BYTES,
            )
        )
