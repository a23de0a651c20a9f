"""PlayServer: a policy server whose every word a rule says, and the streams that clients open.

gRPC's threads read and write; the rules' thread takes streams and messages one by one.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from impala_conformance.refusal import DETAILS_KEY, DOMAIN
from impala_conformance.relay import Relay
from impala_rl.v1 import policy_pb2, policy_pb2_grpc

_NUM_THREADS = 64
_GRACE_S = 0.2


class _End(NamedTuple):
    """How a stream is ended by the server."""

    code: grpc.StatusCode
    reason: str
    text: str


class ServedStream:
    """One stream of the client.

    Attributes:
      metadata: of the call, by lower-case name.
      is_over: whether the client, or a break, has ended it.
    """

    def __init__(self, context: Any) -> None:  # Any: a grpc.ServicerContext
        """Takes the stream over."""
        self.metadata = {key.lower(): value for key, value in context.invocation_metadata()}
        self.is_over = False
        self._context = context
        self._requests: queue.SimpleQueue[policy_pb2.PlayRequest | None] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[policy_pb2.PlayResponse | _End] = queue.SimpleQueue()
        if not context.add_callback(self._on_end):
            self._on_end()

    def take(self, timeout_s: float) -> policy_pb2.PlayRequest | None:
        """Returns the next message; None: the client said that nothing more comes, or it broke.

        Raises:
          queue.Empty: nothing came in time.
        """
        request = self._requests.get(timeout=timeout_s)
        if request is None:
            self.is_over = True
        return request

    def send(self, **payload: Any) -> None:  # Any: messages
        """Sends a response."""
        self._responses.put(policy_pb2.PlayResponse(**payload))

    def end(
        self, code: grpc.StatusCode = grpc.StatusCode.OK, reason: str = "", text: str = ""
    ) -> None:
        """Ends the stream after what was sent.

        Args:
          code: of the status.
          reason: of its ErrorInfo; empty: there is none.
          text: for people.
        """
        self._responses.put(_End(code, reason, text))

    def read(self, requests: Iterator[policy_pb2.PlayRequest]) -> None:
        """Reads to the end; on a thread of its own."""
        try:
            for request in requests:
                self._requests.put(request)
        except Exception:  # noqa: S110 (however a stream breaks, it is over)
            pass
        self._requests.put(None)

    def write(self) -> Iterator[policy_pb2.PlayResponse]:
        """Yields responses until the stream ends; on gRPC's thread.

        Raises:
          Exception: gRPC's own, which ends the call with a status.
        """
        while isinstance(response := self._responses.get(), policy_pb2.PlayResponse):
            yield response
        assert isinstance(response, _End)
        if response.code is grpc.StatusCode.OK:
            return
        if response.reason:
            info = any_pb2.Any()
            info.Pack(error_details_pb2.ErrorInfo(reason=response.reason, domain=DOMAIN))
            status = status_pb2.Status(
                code=response.code.value[0], message=response.text, details=[info]
            )
            self._context.set_trailing_metadata([(DETAILS_KEY, status.SerializeToString())])
        self._context.abort(response.code, response.text)

    def _on_end(self) -> None:
        self._requests.put(None)
        self._responses.put(_End(grpc.StatusCode.OK, "", ""))


class PlayServer(policy_pb2_grpc.PolicyServiceServicer):
    """Serves one client, behind a relay.

    Attributes:
      relay: breaks connections.
      streams: those that the client has opened, to be taken in their order.
    """

    def __init__(self) -> None:
        """Serves on free ports of 127.0.0.1 until `close`."""
        self.streams: queue.SimpleQueue[ServedStream] = queue.SimpleQueue()
        self._pool = futures.ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="play")
        self._readers = futures.ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="play-reader")
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            # How often a client pings is for a rule to say, not for the library to end it.
            ("grpc.http2.min_ping_interval_without_data_ms", 1),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        self._server = grpc.server(self._pool, options=options)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.relay = Relay(f"127.0.0.1:{port}")

    def Play(  # noqa: N802
        self, request_iterator: Iterator[policy_pb2.PlayRequest], context: Any
    ) -> Iterator[policy_pb2.PlayResponse]:
        """Hands a stream to whoever takes it; on gRPC's thread until it ends."""
        stream = ServedStream(context)
        self._readers.submit(stream.read, request_iterator)
        self.streams.put(stream)
        yield from stream.write()

    def close(self) -> None:
        """Ends all streams and threads."""
        self.relay.close()
        self._server.stop(_GRACE_S).wait()
        self._pool.shutdown(wait=False)
        self._readers.shutdown(wait=False)
