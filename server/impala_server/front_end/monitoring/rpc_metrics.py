"""Counts of RPCs under the names of go-grpc-prometheus, by an interceptor.

Runs on the front end's event loop. Existing dashboards and alerts for those names work unchanged.
Messages are counted where they are (de)serialised, so each is counted once, however a method reads
and writes. Unknown methods share one set of labels, so that clients cannot create series.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry, Counter, Histogram

from impala_server.front_end.listener.scopes import list_methods

RPC_NAMES = (
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "grpc_server_handling_seconds",
)
"""Names of the exported RPC metrics."""

_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
_Handler = Any  # grpc.RpcMethodHandler, with its four forms
_UNKNOWN = ("unknown", "unknown", "unknown")
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class RpcMetrics(grpc.aio.ServerInterceptor):
    """Put first among a server's interceptors, so that refused calls count too."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Exports through `registry`."""
        self._types = {path: _type_of(path) for path in _list_methods()}
        self._started = Counter("grpc_server_started", "RPCs started.", _LABELS, registry=registry)
        self._handled = Counter(
            "grpc_server_handled", "RPCs ended, by code.", (*_LABELS, "grpc_code"),
            registry=registry,
        )  # fmt: skip
        self._received = Counter(
            "grpc_server_msg_received", "Messages received.", _LABELS, registry=registry
        )
        self._sent = Counter("grpc_server_msg_sent", "Messages sent.", _LABELS, registry=registry)
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from an RPC's start to its end; of streams, their whole life.",
            _LABELS,
            buckets=_BUCKETS,
            registry=registry,
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wraps the method's handler."""
        handler = await continuation(handler_call_details)
        path = str(handler_call_details.method)
        if handler is None:
            self._started.labels(*_UNKNOWN).inc()
            self._handled.labels(*_UNKNOWN, "UNIMPLEMENTED").inc()
            return None
        if path not in self._types:  # refused for its token, before its handler was found
            return self._wrap(handler, _UNKNOWN)
        service, _, method = path.lstrip("/").rpartition("/")
        return self._wrap(handler, (self._types[path], service, method))

    def _wrap(self, handler: _Handler, labels: tuple[str, str, str]) -> _Handler:
        form = f"{'stream' if handler.request_streaming else 'unary'}_" + (
            "stream" if handler.response_streaming else "unary"
        )
        inner = getattr(handler, form)
        wrapped = (
            self._wrap_generator(inner, labels)
            if inspect.isasyncgenfunction(inner)
            else self._wrap_coroutine(inner, labels)
        )
        make = getattr(grpc, f"{form}_rpc_method_handler")
        return make(
            wrapped,
            request_deserializer=_counting(
                handler.request_deserializer, self._received.labels(*labels)
            ),
            response_serializer=_counting(handler.response_serializer, self._sent.labels(*labels)),
        )

    def _wrap_coroutine(self, inner: Any, labels: tuple[str, ...]) -> Any:  # Any: a handler
        async def call(request: Any, context: Any) -> Any:
            start_s = self._begin(labels)
            try:
                response = await inner(request, context)
            except BaseException as error:
                self._end(labels, start_s, context, error)
                raise
            self._end(labels, start_s, context, None)
            return response

        return call

    def _wrap_generator(self, inner: Any, labels: tuple[str, ...]) -> Any:  # Any: a handler
        async def call(request: Any, context: Any) -> Any:
            start_s = self._begin(labels)
            try:
                async for response in inner(request, context):
                    yield response
            except BaseException as error:
                self._end(labels, start_s, context, error)
                raise
            self._end(labels, start_s, context, None)

        return call

    def _begin(self, labels: tuple[str, ...]) -> float:
        self._started.labels(*labels).inc()
        return time.monotonic()

    def _end(
        self, labels: tuple[str, ...], start_s: float, context: Any, error: BaseException | None
    ) -> None:
        self._seconds.labels(*labels).observe(time.monotonic() - start_s)
        self._handled.labels(*labels, _code_of(context, error)).inc()


def _counting(work: Any, counter: Any) -> Any:  # Any: bytes to message, or back; a child
    """Returns `work` that counts its calls; None, which stands for "leave as bytes", too."""

    def count(value: Any) -> Any:
        counter.inc()
        return value if work is None else work(value)

    return count


def _code_of(context: Any, error: BaseException | None) -> str:  # Any: an aio context
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    code = context.code()
    number = code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
    if error is not None and number == 0:
        return "UNKNOWN"
    return _CODES.get(number, "UNKNOWN")


def _list_methods() -> Iterator[str]:
    """Yields the paths of all methods this project's servers can have."""
    yield from list_methods()
    for module in (health_pb2, channelz_pb2, reflection_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"


def _type_of(path: str) -> str:
    """Returns the method's form by its descriptor: handlers may have another (RequestGuard)."""
    name = path.removeprefix("/").replace("/", ".")
    method = descriptor_pool.Default().FindMethodByName(name)
    if method.client_streaming and method.server_streaming:
        return "bidi_stream"
    if method.client_streaming:
        return "client_stream"
    return "server_stream" if method.server_streaming else "unary"
