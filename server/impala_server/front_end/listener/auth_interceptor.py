"""AuthInterceptor: checks the token of every call.

Runs on the front end's event loop, before the method's handler is called. Default deny: a method
that is not in `scopes` is refused. A refused call gets no deserialiser, so its bytes are never
parsed.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from impala_common.config import TrainConfig
from impala_common.errors import PermissionDeniedError, SecurityError, UnauthenticatedError
from impala_common.process.logs import printable
from impala_common.rpc.addresses import is_local, is_unix
from impala_common.rpc.errors import status_of
from impala_common.rpc.tokens import Scope, TokenBook, read_token
from impala_server.front_end.listener.path_guard import UNKNOWN_METHOD
from impala_server.front_end.listener.scopes import (
    EVALUATORS_MAY_ALSO,
    scope_of_method,
    validate_scopes,
)

_LOG = logging.getLogger(__name__)
_LOG_INTERVAL_S = 10.0
_BEARER = "bearer "

FAILURE_KINDS = ("no_token", "wrong_token", "wrong_scope")
"""Keys of `AuthInterceptor.failures`, and the only values a metric's label may have."""

_Handler = Any  # Any: grpc.RpcMethodHandler, whose attributes the stubs do not know
_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]]


def make_interceptor(config: TrainConfig, host: str | None = None) -> AuthInterceptor:
    """Returns the interceptor of the listener on `host`, default: the data plane's.

    A scope without a token file is open on a loopback or Unix-socket listener and closed on any
    other. Exceptions: the settings may open the actors' scope to everyone, and without a token of
    their own evaluators have the actors' scope.

    Raises:
      ConfigError: a token file cannot be used.
    """
    validate_scopes()
    host = config.transport.host if host is None else host
    security, tokens = config.security, {}
    for scope in Scope:
        name = f"{scope.value}_token_file"
        if path := getattr(security, name):
            tokens[scope] = read_token(name, path)
    book = TokenBook(tokens)
    is_here = is_unix(host) or is_local(host)
    is_open_to_actors = is_here or config.transport.allow_insecure_public_bind_without_tls
    open_scopes = {
        scope
        for scope, is_open in ((Scope.ADMIN, is_here), (Scope.ACTOR, is_open_to_actors))
        if is_open and scope not in book.scopes
    }
    if Scope.ACTOR in open_scopes and Scope.EVALUATOR not in book.scopes:
        open_scopes.add(Scope.EVALUATOR)
    return AuthInterceptor(book, frozenset(open_scopes))


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls through whose token has the method's scope.

    Attributes:
      failures: refused calls by kind (FAILURE_KINDS); only ever counts up.
    """

    def __init__(
        self,
        book: TokenBook,
        open_scopes: frozenset[Scope] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Knows the tokens of `book`; methods of `open_scopes` need none."""
        self._book = book
        self._open_scopes = open_scopes
        self._clock = clock
        self._logged_s = -_LOG_INTERVAL_S
        self._unlogged = 0
        self.failures = collections.Counter(dict.fromkeys(FAILURE_KINDS, 0))

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler:
        """Returns the method's handler, or one that refuses the call."""
        method = handler_call_details.method
        is_known, scope = scope_of_method(method)
        if scope is Scope.EVALUATOR and scope not in self._book.scopes:
            scope = Scope.ACTOR
        # Finds the handler; no request is read yet.
        handler = await continuation(handler_call_details)
        if is_known and (scope is None or scope in self._open_scopes):
            return handler
        if handler is None and method == UNKNOWN_METHOD:
            # UNIMPLEMENTED for every caller: tools that try a service's older name need it.
            return None
        if not self._book.scopes and (handler is None or self._open_scopes == set(Scope)):
            return handler  # no tokens are in use: unknown methods get UNIMPLEMENTED
        kind, error = self._judge(handler_call_details, method, is_known, scope, handler)
        if error is None:
            return handler
        return self._refuse(kind, error, method, handler)

    def _judge(
        self,
        details: grpc.HandlerCallDetails,
        method: str,
        is_known: bool,
        scope: Scope | None,
        handler: _Handler,
    ) -> tuple[str, SecurityError | None]:
        """Returns (kind of failure, error), or ("", None) for a call that may go on."""
        found = None
        presented = [
            value for key, value in details.invocation_metadata or () if key == "authorization"
        ]
        if not presented:
            return "no_token", UnauthenticatedError(
                "the learner wants a token and none was sent: pass --token-file FILE"
            )
        if len(presented) == 1 and isinstance(presented[0], str):
            text = presented[0]
            if text[: len(_BEARER)].lower() == _BEARER:
                found = self._book.scope_of(text[len(_BEARER) :])
        if found is None:
            return "wrong_token", UnauthenticatedError(
                "the learner does not know this token: --token-file must name a copy of its "
                "--actor-token-file (evaluators: --evaluator-token-file; administration: "
                "--admin-token-file)"
            )
        if handler is None:
            return "", None  # gRPC answers UNIMPLEMENTED
        is_theirs = found is Scope.EVALUATOR and method in EVALUATORS_MAY_ALSO
        if not is_known or (scope is not found and not is_theirs):
            needed = f"the {scope.value} scope" if is_known and scope else "no token at all"
            return "wrong_scope", PermissionDeniedError(
                f"this token has the {found.value} scope; {method} is open to {needed}"
            )
        return "", None

    def _refuse(self, kind: str, error: SecurityError, method: str, handler: _Handler) -> _Handler:
        """Returns a handler of the same cardinality that refuses, without a deserialiser."""
        self.failures[kind] += 1

        async def abort(unused_request: Any, context: Any) -> None:
            self._log(kind, method, context.peer())
            await context.abort_with_status(status_of(error))

        async def abort_stream(unused_request: Any, context: Any) -> Any:
            await abort(unused_request, context)
            yield b""

        if handler is not None and handler.request_streaming:
            if handler.response_streaming:
                return grpc.stream_stream_rpc_method_handler(abort_stream)
            return grpc.stream_unary_rpc_method_handler(abort)
        if handler is not None and handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(abort_stream)
        return grpc.unary_unary_rpc_method_handler(abort)

    def _log(self, kind: str, method: str, peer: str) -> None:
        """Logs one refused call in ten seconds, with the number of calls since the last line."""
        now_s = self._clock()
        if now_s - self._logged_s < _LOG_INTERVAL_S:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more since the last such line)" if self._unlogged else ""
        self._logged_s, self._unlogged = now_s, 0
        _LOG.warning(
            "refused %s from %s: %s%s",
            printable(method, 120),
            printable(peer, 80),
            kind.replace("_", " "),
            more,
        )
