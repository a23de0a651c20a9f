"""DoorServer: a listener with the product's authentication and trivial methods.

Serves every method of every service there is, ours and gRPC's own, with handlers that only
note that they were reached and that their bytes were given to a deserialiser. Runs an event
loop on a thread of its own; leaving the context ends it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pool
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from impala_common.config import TrainConfig
from impala_server.front_end.listener.auth_interceptor import AuthInterceptor, make_interceptor
from impala_server.front_end.listener.credentials import bind
from impala_server.front_end.listener.scopes import list_methods

FOREIGN = (health_pb2, reflection_pb2, channelz_pb2)
WAIT_S = 10.0


class Method(NamedTuple):
    """One method as its descriptor has it."""

    name: str
    is_client_streaming: bool
    is_server_streaming: bool


def all_methods() -> list[Method]:
    """Returns every method of every service in the descriptors."""
    names = list(list_methods())
    for module in FOREIGN:
        for service in module.DESCRIPTOR.services_by_name.values():
            names += [f"/{service.full_name}/{method.name}" for method in service.methods]
    return [_describe(name) for name in names]


def _describe(name: str) -> Method:
    service, _, method = name.removeprefix("/").partition("/")
    found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    return Method(name, found.client_streaming, found.server_streaming)


class DoorServer:
    """See the module.

    Attributes:
      address: HOST:PORT or unix:PATH, once entered.
      interceptor: the product's doorkeeper.
      parsed: bytes that were given to a deserialiser.
      reached: names of methods whose handlers ran.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.address = ""
        self.parsed: list[bytes] = []
        self.reached: list[str] = []
        self.interceptor: AuthInterceptor
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="test-doors")

    def __enter__(self) -> DoorServer:
        self._thread.start()
        assert self._ready.wait(WAIT_S)
        if self._failure is not None:
            self._thread.join(WAIT_S)
            raise self._failure
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self.interceptor = make_interceptor(self.config)
        server = grpc.aio.server(interceptors=[self.interceptor])
        services: dict[str, dict[str, Any]] = {}
        for method in all_methods():
            service, _, name = method.name.removeprefix("/").partition("/")
            services.setdefault(service, {})[name] = self._handler(method)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, m) for name, m in services.items()]
        )
        transport = self.config.transport
        self.address = bind(server, transport.host, transport.port, self.config)
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.stop(None)

    def _handler(self, method: Method) -> Any:
        def parse(data: bytes) -> bytes:
            self.parsed.append(data)
            return data

        async def answer(unused_request: Any, unused_context: Any) -> bytes:
            self.reached.append(method.name)
            return b""

        async def answer_stream(unused_request: Any, unused_context: Any) -> Any:
            self.reached.append(method.name)
            yield b""

        if method.is_client_streaming and method.is_server_streaming:
            return grpc.stream_stream_rpc_method_handler(answer_stream, parse)
        if method.is_client_streaming:
            return grpc.stream_unary_rpc_method_handler(answer, parse)
        if method.is_server_streaming:
            return grpc.unary_stream_rpc_method_handler(answer_stream, parse)
        return grpc.unary_unary_rpc_method_handler(answer, parse)


def call(
    channel: grpc.Channel,
    method: Method,
    payload: bytes,
    metadata: tuple[tuple[str, str], ...] = (),
) -> grpc.StatusCode:
    """Calls a method with raw bytes and returns how it ended."""

    def requests() -> Iterator[bytes]:
        yield payload

    request: Any = requests() if method.is_client_streaming else payload
    kind = "_".join(
        "stream" if is_streaming else "unary"
        for is_streaming in (method.is_client_streaming, method.is_server_streaming)
    )
    try:
        answer = getattr(channel, kind)(method.name)(request, timeout=WAIT_S, metadata=metadata)
        if method.is_server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def security_of(
    folder: Path, *, tls: bool, tokens: bool = True, mtls: bool = False
) -> dict[str, Any]:
    """Returns settings of the section `security` with files that `certs init` made."""
    settings = {}
    if tls:
        settings |= {"tls_cert": str(folder / "server.crt"), "tls_key": str(folder / "server.key")}
    if mtls:
        settings["tls_client_ca"] = str(folder / "ca.crt")
    if tokens:
        settings["actor_token_file"] = str(folder / "actor.token")
        settings["evaluator_token_file"] = str(folder / "evaluator.token")
        settings["admin_token_file"] = str(folder / "admin.token")
    return settings
