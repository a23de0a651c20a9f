"""AsyncSlotsClient: SlotsClient for asyncio.

Owned by one event loop; tasks may `act` for slots of their own at the same time: each gets the
actions of its slots, whichever task reads them off the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any, NamedTuple

import grpc

from impala_rl.v1 import policy_pb2, policy_pb2_grpc
from impala_thin.batches import Actions, Observations, join
from impala_thin.environment import Environment
from impala_thin.errors import EpisodeLostError, ThinError
from impala_thin.hello import ClientSettings
from impala_thin.play_state import GOODBYE, GOODBYE_S, BrokenStreamError, PlayState

_Answer = Actions | EpisodeLostError


class _Request(NamedTuple):
    """Observations that were sent, and the future of each slot's answer."""

    given: Observations
    futures: dict[int, asyncio.Future[_Answer]]


class AsyncSlotsClient:
    """A client of a policy server. An asynchronous context manager; `close` says goodbye.

    Attributes:
      environment: what is played.
      num_slots: N.
      num_reconnects: streams after the first.
    """

    def __init__(
        self, environment: Environment, num_slots: int = 1, *, settings: ClientSettings
    ) -> None:
        """Connects when first used; made on the event loop."""
        self.environment = environment
        self.num_slots = num_slots
        self.num_reconnects = -1
        self._settings = settings
        self._state = PlayState(environment, num_slots, settings)
        credentials = settings.credentials()
        self._channel = (
            grpc.aio.insecure_channel(settings.server, settings.options())
            if credentials is None
            else grpc.aio.secure_channel(settings.server, credentials, settings.options())
        )
        self._stub: Any = policy_pb2_grpc.PolicyServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._call: Any = None  # Any: a grpc.aio.StreamStreamCall
        self._writing = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._left: dict[int, _Request] = {}  # by slot: those whose task was cancelled

    async def __aenter__(self) -> AsyncSlotsClient:
        """Returns itself."""
        return self

    async def __aexit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Closes."""
        await self.close()

    async def act(self, given: Observations) -> Actions:
        """Sends observations and returns their actions, in the order of `given.slots`.

        After a ServerUnavailableError the same call tries again. After a cancellation, as of
        asyncio.wait_for, it goes on waiting, and other observations of these slots are refused:
        the server counts on the actions that it has chosen.

        Raises:
          EpisodeLostError: the slots it names have to be reset. Of the others given here, the
            actions have come and are lost with it: open new episodes in them, too.
          RunFinishedError: the run has finished.
          ThinError: the server refuses this client, or cannot be reached in time.
          ValueError: a slot waits for the action of its last observation, or has not been given it.
        """
        messages: list[policy_pb2.PlayRequest] = []
        request = self._find_left(given)
        if request is None:
            request, messages = self._begin(given)
        for slot in given.slots:
            self._left.pop(slot, None)
        try:
            if self._call is not None:  # a new stream sends all that has no answer
                try:
                    await self._write(self._call, *messages)
                except asyncio.CancelledError:
                    self.break_stream()  # nobody knows what was written
                    raise
            # Shielded: a cancelled task leaves its answers to the next one.
            answers = await asyncio.shield(asyncio.gather(*request.futures.values()))
        except asyncio.CancelledError:
            self._left.update(dict.fromkeys(given.slots, request))
            raise
        lost = [answer.slots for answer in answers if isinstance(answer, EpisodeLostError)]
        if lost:
            raise EpisodeLostError(sorted(slot for slots in lost for slot in slots))
        return join([answer for answer in answers if isinstance(answer, Actions)], given.slots)

    def _find_left(self, given: Observations) -> _Request | None:
        """Returns the request of a cancelled task that sent these very observations.

        Raises:
          ValueError: it sent others, whose actions nobody has taken; a new episode may begin.
        """
        left = [self._left[slot] for slot in given.slots if slot in self._left]
        if not left:
            return None
        is_same = left[0].given.slots == given.slots and self._state.is_same(left[0].given, given)
        is_first = bool(given.is_first) and all(given.is_first)
        if not is_same and not is_first:
            raise ValueError(
                f"slots {list(given.slots)}: the actions of their last observations were not "
                "taken, as the task was cancelled: give the same observations again, or is_first"
            )
        return left[0] if is_same else None

    def _begin(self, given: Observations) -> tuple[_Request, list[policy_pb2.PlayRequest]]:
        """Returns a new request and the messages to send; from here on its answers are read."""
        is_tried_again = self._waiting.keys().isdisjoint(given.slots) and self._state.holds(given)
        messages = [] if is_tried_again else self._state.pack(given)
        loop = asyncio.get_running_loop()
        request = _Request(given, {slot: loop.create_future() for slot in given.slots})
        self._waiting.update(request.futures)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_on())
        return request, messages

    def break_stream(self) -> None:
        """Breaks the stream, as a network would; another is opened."""
        if self._call is not None:
            self._call.cancel()

    async def close(self) -> None:
        """Says goodbye and disconnects; tasks that wait get StoppedError."""
        self._state.is_stopped = True
        if self._call is not None:
            await self._write(self._call, GOODBYE)
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
        if self._call is not None and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read_to_end())
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=GOODBYE_S)
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        await self._channel.close()

    async def _read_on(self) -> None:
        """Reads answers, over all streams, while somebody waits; passes on what ends that."""
        try:
            while self._waiting:
                if self._call is None:
                    await self._connect()
                try:
                    actions = self._state.unpack(await self._read(self._call))
                except BrokenStreamError:
                    self._call = None
                except EpisodeLostError as error:
                    for slot in error.slots:
                        self._answer(slot, EpisodeLostError([slot]))
                else:
                    for index, slot in enumerate(actions.slots if actions else ()):
                        assert actions is not None
                        self._answer(slot, actions.select([index]))
        except Exception as error:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(error)
            self._waiting.clear()

    async def _read_to_end(self) -> None:
        """Reads until the stream is over."""
        with contextlib.suppress(BrokenStreamError, ThinError):
            while await self._read(self._call) is not None:
                pass

    def _answer(self, slot: int, answer: _Answer) -> None:
        future = self._waiting.pop(slot, None)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _write(self, call: Any, *requests: policy_pb2.PlayRequest) -> None:
        """Writes to a stream; that it is broken shows where answers are read."""
        async with self._writing:
            try:
                for request in requests:
                    await call.write(request)
            except (grpc.RpcError, asyncio.InvalidStateError):
                pass
            except asyncio.CancelledError:
                _raise_if_cancelled(call)

    async def _read(self, call: Any) -> policy_pb2.PlayResponse | None:
        """Returns the next response; None at the end of the stream."""
        try:
            response: Any = await call.read()
        except grpc.RpcError as error:
            raise self._state.unpack_error(error) from error
        except asyncio.CancelledError as error:
            _raise_if_cancelled(call)
            self._state.require_running()
            raise BrokenStreamError("broken off") from error
        return None if response is grpc.aio.EOF else response

    async def _connect(self) -> None:
        """Opens a stream and repeats what has no answer; waits for the server.

        Raises:
          ThinError: the server refuses this client, or cannot be reached in time.
        """
        attempts = self._state.attempts
        attempts.begin()
        if self.num_reconnects >= 0:
            await asyncio.sleep(attempts.next_wait_s("the stream broke"))
        while True:
            self._state.require_running()
            call = self._stub.Play()
            try:
                await self._write(call, self._state.hello)
                self._state.require_welcome(await self._read(call))
                break
            except BrokenStreamError as error:
                await asyncio.sleep(attempts.next_wait_s(error))
        self.num_reconnects += 1
        self._call = call
        await self._write(call, *self._state.repeat())


def _raise_if_cancelled(call: Any) -> None:
    """Raises CancelledError again, unless it is the call that was cancelled and not this task."""
    task = asyncio.current_task()
    if not call.cancelled() or (task is not None and task.cancelling()):
        raise asyncio.CancelledError
