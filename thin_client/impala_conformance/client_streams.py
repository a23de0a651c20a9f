"""ClientStreams: one process of the client, the server that it comes to, and its streams.

What is said on them is for `ClientSession`; here is who comes, and how a stream or the client ends.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from impala_conformance.client_process import ClientProcess
from impala_conformance.hello_checks import find_hello_faults
from impala_conformance.play_judge import PlayJudge, UnreadableError
from impala_conformance.play_server import PlayServer, ServedStream
from impala_conformance.policy_peer import PROTOCOL_VERSION
from impala_conformance.rule import ViolationError
from impala_rl.v1 import learner_pb2, policy_pb2

_POLL_S = 0.1
_SLOT_TIMEOUT_S = 60
_MAX_MESSAGE_BYTES = 64 << 20


class EarlyEndError(ViolationError):
    """The client was over when it should have played on."""


class StillnessError(ViolationError):
    """The client did not do in time what was waited for."""


class ClientStreams:
    """A context manager; the client is killed at its end.

    Attributes:
      patience_s: longest wait for what the client must do next.
      process: of the client.
      relay: breaks connections.
      stream: the newest stream that was taken.
      hello: of its first stream.
      judge: follows its slots; there from the first hello on.
      is_goodbye: whether it has said goodbye on the newest stream.
      note: takes violations by the name of their rule.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        patience_s: float,
        start_s: float,
        note: Callable[[str, str], None] | None = None,
    ) -> None:
        """Starts a server and the client.

        Args:
          command: of the client, with `{address}`.
          patience_s: longest wait for what the client must do next.
          start_s: longest wait for its first stream.
          note: is told of violations by the name of their rule; None: the first one is raised.

        Raises:
          OSError: there is no such program.
        """
        self.patience_s = patience_s
        self.is_goodbye = False
        self.hello = policy_pb2.PlayHello()
        self.judge: PlayJudge
        self.stream: ServedStream
        self.note = note or _raise_violation
        self._num_streams = 0
        self._start_s = start_s
        self._server = PlayServer()
        self.relay = self._server.relay
        try:
            self.process = ClientProcess(command, self.relay.address)
        except OSError:
            self._server.close()
            raise

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Kills the client and closes the server."""
        self.process.kill()
        self._server.close()

    @property
    def num_slots(self) -> int:
        """N of the hello."""
        return self.hello.slot_count

    def accept(self, timeout_s: float | None = None) -> ServedStream:
        """Takes the client's next stream and its hello.

        Raises:
          EarlyEndError: the client ended.
          StillnessError: there is no stream, or no hello, in time.
        """
        if timeout_s is None and not self._num_streams:
            timeout_s = self._start_s
        self.stream = self.wait(
            lambda wait_s: self._server.streams.get(timeout=wait_s), "a stream", timeout_s
        )
        self.is_goodbye = False
        request = self.wait(self.stream.take, "hello", timeout_s)
        kind = "the end of the stream" if request is None else request.WhichOneof("payload")
        if request is None or kind != "hello":
            self.note("hello-first", f"expected hello as the first message, got {kind}")
            raise UnreadableError("no hello")
        if self._num_streams == 0:
            self.hello = request.hello
            self.judge = PlayJudge(self.hello, self.note)
            for rule, text in find_hello_faults(self.hello):
                self.note(rule, text)
            if self.hello.slot_count < 1 or not self.hello.environment.observation_leaves:
                raise UnreadableError("nothing can be played")
        elif request.hello != self.hello:
            differing = _differences(self.hello, request.hello)
            self.note("same-hello", f"stream {self._num_streams + 1} differs in {differing}")
        self._num_streams += 1
        self.judge.begin_stream()
        return self.stream

    def welcome(self, max_message_bytes: int = _MAX_MESSAGE_BYTES) -> None:
        """Sends the welcome."""
        welcome = policy_pb2.PlayWelcome(
            protocol_version=PROTOCOL_VERSION, max_message_bytes=max_message_bytes
        )
        welcome.slot_timeout.FromSeconds(_SLOT_TIMEOUT_S)
        self.stream.send(welcome=welcome)

    def open(self) -> None:
        """Takes the next stream and welcomes the client."""
        self.accept()
        self.welcome()

    def end(
        self, code: grpc.StatusCode = grpc.StatusCode.OK, reason: str = "", text: str = ""
    ) -> None:
        """Ends the stream; see `ServedStream.end`."""
        self.stream.end(code, reason, text)

    def drain(self, *, is_finished: bool) -> None:
        """Sends a drain."""
        reason = (
            learner_pb2.DRAIN_REASON_FINISHED if is_finished else learner_pb2.DRAIN_REASON_STOPPING
        )
        self.stream.send(drain=policy_pb2.PlayDrain(reason=reason))

    def wait_end(self) -> int:
        """Waits until the client has ended, and returns its exit code; reads what comes meanwhile.

        Raises:
          StillnessError: it goes on.
          ViolationError: it opens another stream.
        """
        end_s = time.monotonic() + self.patience_s
        while self.process.exit_code is None:
            if time.monotonic() > end_s:
                text = f"within {self.patience_s:g} s"
                raise StillnessError(f"expected the end of the client {text}: it goes on")
            try:
                self._server.streams.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            raise ViolationError("expected the end of the client, got another stream")
        return self.process.exit_code

    def wait(self, take: Callable[..., Any], what: str, timeout_s: float | None) -> Any:
        """Returns what `take(seconds)` gives: a stream, or a message or None.

        Raises:
          EarlyEndError: the client ended, and there is nothing more.
          StillnessError: there was nothing in time.
        """
        timeout_s = self.patience_s if timeout_s is None else timeout_s
        end_s = time.monotonic() + timeout_s
        while True:
            has_ended = self.process.exit_code is not None
            try:
                return take(min(_POLL_S, max(end_s - time.monotonic(), 0.001)))
            except queue.Empty:
                if has_ended:
                    text = f"expected {what}, but {self.process.describe_end()}"
                    raise EarlyEndError(text) from None
                if time.monotonic() >= end_s:
                    raise StillnessError(
                        f"expected {what} within {timeout_s:.3g} s, got nothing"
                    ) from None


def _raise_violation(rule: str, text: str) -> None:
    raise ViolationError(f"{rule}: {text}")


def _differences(one: policy_pb2.PlayHello, other: policy_pb2.PlayHello) -> str:
    names = [
        field.name
        for field in policy_pb2.PlayHello.DESCRIPTOR.fields
        if getattr(one, field.name) != getattr(other, field.name)
    ]
    return ", ".join(names) or "fields that are not known"
