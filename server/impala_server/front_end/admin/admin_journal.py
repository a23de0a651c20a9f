"""AdminJournal: makes each change of an administrator once and writes its audit line.

Runs on the front end's event loop, between a method of `AdminServicer` and the gRPC
server. Order: request id, expected run, the change, the audit line, the answer.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import grpc
from google.protobuf.message import Message

from impala_common.errors import ImpalaError, LearnerUnavailableError, RunMismatchError
from impala_common.process.logs import printable
from impala_common.rpc.limits import UNARY_DEADLINE_S
from impala_rl.v1 import admin_pb2 as pb
from impala_server.front_end.admin.audit_log import AuditLog
from impala_server.front_end.admin.request_cache import RequestCache
from impala_server.front_end.listener.wire_errors import translated
from impala_server.front_end.monitoring.server_facts import ServerFacts

LONG_S = 120.0
"""Timeout of a change that waits for a disk or for updates."""

_LOG = logging.getLogger(__name__)
_Context = grpc.aio.ServicerContext[Any, Any]


class Done(NamedTuple):
    """Response of a change, and the facts that its audit line adds to the request."""

    response: Any  # Any: the response message of the method
    facts: dict[str, Any]


Handler = Callable[[Any, Any], Awaitable[Done]]
"""Makes a change: servicer and request -> Done."""


class _HasJournal(Protocol):
    journal: AdminJournal


def change(timeout_s: float = UNARY_DEADLINE_S) -> Callable[[Handler], Callable[..., Any]]:
    """Makes a gRPC method of a handler: one effect per request id, audited, errors translated.

    Args:
      timeout_s: time to wait for the answer; the change goes on after it.
    """

    def make_method(handler: Handler) -> Callable[..., Any]:
        @functools.wraps(handler)
        async def method(self: _HasJournal, request: Any, context: _Context) -> Any:
            async with translated(context):
                return await self.journal.make(
                    handler.__name__,
                    request,
                    context.peer(),
                    lambda: handler(self, request),
                    timeout_s,
                )
            raise AssertionError("unreachable: translated aborts")

        return method

    return make_method


class AdminJournal:
    """Makes changes by the name of their method."""

    def __init__(self, facts: ServerFacts, audit: AuditLog, who: str) -> None:
        """Makes changes to the server that `facts` describe.

        Args:
          facts: the server.
          audit: the file that each change is written to.
          who: how callers were authenticated, such as "admin token".
        """
        self._facts = facts
        self._audit = audit
        self._who = who
        self._cache = RequestCache(time.monotonic)

    async def make(
        self,
        name: str,
        request: Any,
        peer: str,
        carry_out: Callable[[], Awaitable[Done]],
        timeout_s: float,
    ) -> Any:  # Any: messages of `name`
        """Makes a change and returns its response; raises ImpalaError where it is refused."""
        is_begun = False

        async def begin() -> Any:
            nonlocal is_begun
            is_begun = True
            return await self._make_once(name, request, peer, carry_out)

        content = name.encode() + b"\0" + request.SerializeToString(deterministic=True)
        request_id = request.header.request_id
        try:
            return await self._cache.once(request_id, content, begin, timeout_s)
        except ImpalaError as error:
            if not is_begun and not isinstance(error, LearnerUnavailableError):
                # The change never began: the request id is invalid or was used before.
                await self._write(name, request, peer, error.reason, text=str(error))
            raise

    async def _make_once(
        self, name: str, request: Any, peer: str, carry_out: Callable[[], Awaitable[Done]]
    ) -> Any:
        try:
            self._require_expected_run(request.header.expected_run_id)
            done = await carry_out()
        except ImpalaError as error:
            await self._write(name, request, peer, error.reason, text=str(error))
            raise
        except Exception:
            await self._write(name, request, peer, "INTERNAL")
            raise
        await self._write(name, request, peer, "ok", **done.facts)
        facts = _arguments_of(request) | done.facts
        _LOG.warning("administrator: %s %s", name, printable(json.dumps(facts)) if facts else "")
        return done.response

    async def _write(
        self, name: str, request: Message, peer: str, outcome: str, **facts: Any
    ) -> None:
        header: pb.MutationHeader = getattr(request, "header")  # noqa: B009 (not in Message)
        await self._audit.write(
            f"{self._who} {peer}",
            name,
            outcome,
            request_id=header.request_id,
            arguments=_arguments_of(request),
            **facts,
        )

    def _require_expected_run(self, expected: int) -> None:
        run = self._facts.link.run
        actual = run.learner_run_id if run is not None else 0
        if expected not in (0, actual):
            raise RunMismatchError(
                f"meant for learner_run_id {expected:016x}, but {actual:016x} runs: it was "
                "restarted; nothing was done"
            )


def _arguments_of(request: Message) -> dict[str, Any]:
    """Returns the fields of a request as JSON, without its header."""
    arguments = {}
    for field, value in request.ListFields():
        if field.name == "header":
            continue
        known = field.enum_type.values_by_number if field.enum_type is not None else {}
        arguments[field.name] = known[value].name if value in known else value
    return arguments
