"""SlotsClient: plays N slots over one stream, which is opened again when it breaks.

For one thread. `send` does not wait; `receive` waits for the next answers; `act` is both.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import grpc

from impala_rl.v1 import policy_pb2, policy_pb2_grpc
from impala_thin.batches import Actions, Observations, join
from impala_thin.environment import Environment
from impala_thin.errors import EpisodeLostError
from impala_thin.hello import ClientSettings
from impala_thin.play_state import GOODBYE, GOODBYE_S, BrokenStreamError, PlayState

__all__ = ["Actions", "Observations", "SlotsClient"]


class SlotsClient:
    """A client of a policy server. A context manager; `close` says goodbye.

    Attributes:
      environment: what is played.
      num_slots: N.
      num_reconnects: streams after the first.
    """

    def __init__(
        self, environment: Environment, num_slots: int = 1, *, settings: ClientSettings
    ) -> None:
        """Connects when first used."""
        self.environment = environment
        self.num_slots = num_slots
        self.num_reconnects = -1
        self._settings = settings
        self._state = PlayState(environment, num_slots, settings)
        credentials = settings.credentials()
        self._channel = (
            grpc.insecure_channel(settings.server, settings.options())
            if credentials is None
            else grpc.secure_channel(settings.server, credentials, settings.options())
        )
        self._stub = policy_pb2_grpc.PolicyServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._call: Any = None  # Any: a grpc.Call that iterates over PlayResponse
        self._requests: queue.SimpleQueue[policy_pb2.PlayRequest | None] = queue.SimpleQueue()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __enter__(self) -> SlotsClient:
        """Returns itself."""
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Closes."""
        self.close()

    def act(self, given: Observations) -> Actions:
        """Sends observations and returns their actions, in the order of `given.slots`.

        For clients whose slots all wait here; see `send` and `receive`, too. After a
        ServerUnavailableError the same call tries again.
        """
        if not self._state.holds(given):
            self.send(given)
        answers: list[Actions] = []
        num_waiting = len(given.slots)
        while num_waiting > 0:
            answers.append(self.receive())
            num_waiting -= len(answers[-1].slots)
        return join(answers, given.slots)

    def send(self, given: Observations) -> None:
        """Sends observations of slots that have the action of their last one.

        Raises:
          ThinError: the server refuses this client, or cannot be reached in time.
        """
        requests = self._state.pack(given)
        if self._call is None:
            self._connect()  # sends all that has no answer
            return
        for request in requests:
            self._requests.put(request)

    def receive(self) -> Actions:
        """Waits for actions of some of the slots that wait.

        Raises:
          EpisodeLostError: slots have to be reset; the others' actions are still to come.
          RunFinishedError: the run has finished.
          ThinError: the server refuses this client, or cannot be reached in time.
        """
        while True:
            try:
                actions = self._state.unpack(self._read())
            except BrokenStreamError:
                self._connect()
                continue
            if actions is not None:
                return actions

    def settle(self) -> None:
        """Waits until no slot waits for an action, and drops those that come."""
        while self._state.num_unanswered:
            try:
                self.receive()
            except EpisodeLostError:
                continue

    def stop(self) -> None:
        """Says goodbye; `send` and `receive` raise StoppedError. From any thread or signal handler.

        A handler must not raise through `receive` itself: gRPC cannot read the stream on after it.
        A server that does not end the stream after goodbye is left after GOODBYE_S.
        """
        self._state.is_stopped = True
        self._leave_in_time()
        self._requests.put(GOODBYE)
        self._requests.put(None)
        self._wakes.put(None)

    def break_stream(self) -> None:
        """Breaks the stream, as a network would; the next `receive` opens another."""
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """Says goodbye and disconnects."""
        if self._call is not None:
            if not self._state.is_stopped:
                self.stop()
            self._leave_in_time()  # `stop` may have come while another stream was opened
            try:
                while next(self._call, None) is not None:
                    pass
            except grpc.RpcError:
                pass  # it is over, one way or the other
        self._call = None
        self._state.is_stopped = True
        self._channel.close()

    def _leave_in_time(self) -> None:
        """Breaks the stream that is there in GOODBYE_S, if the server has not ended it by then."""
        if self._call is not None:
            leaving = threading.Timer(GOODBYE_S, self._call.cancel)
            leaving.daemon = True
            leaving.start()

    def _read(self) -> policy_pb2.PlayResponse | None:
        """Returns the next response; None at the end of the stream."""
        try:
            response: policy_pb2.PlayResponse | None = next(self._call, None)
        except grpc.RpcError as error:
            raise self._state.unpack_error(error) from error
        return response

    def _connect(self) -> None:
        """Opens a stream and repeats what has no answer; waits for the server.

        Raises:
          ThinError: the server refuses this client, or cannot be reached in time.
        """
        attempts = self._state.attempts
        attempts.begin()
        if self._call is not None:
            self._pause(attempts.next_wait_s("the stream broke"))
        while True:
            self._state.require_running()
            self._requests.put(None)  # ends the old stream's generator
            self._requests = queue.SimpleQueue()
            self._requests.put(self._state.hello)
            self._call = self._stub.Play(_generate(self._requests))
            self._state.require_running()  # from here on `stop` knows of this stream
            try:
                self._state.require_welcome(self._read())
                break
            except BrokenStreamError as error:
                self._pause(attempts.next_wait_s(error))
        self.num_reconnects += 1
        for request in self._state.repeat():
            self._requests.put(request)

    def _pause(self, seconds: float) -> None:
        """Waits so long, or until `stop`; an event's lock is not for signal handlers."""
        with contextlib.suppress(queue.Empty):
            self._wakes.get(timeout=seconds)


def _generate(
    requests: queue.SimpleQueue[policy_pb2.PlayRequest | None],
) -> Iterator[policy_pb2.PlayRequest]:
    """Yields the requests of one stream, on a thread of gRPC's, until None."""
    while (request := requests.get()) is not None:
        yield request
