"""Questions of the front end to the learner, over the control pipe: each gets one answer.

Owned by the front end's event loop. An answer finds its question by id. The
learner answers between two updates; if it is lost, all questions fail. A
question that timed out, or whose asker left, is withdrawn: it no longer counts,
and the learner does not carry it out if it has not begun to. At most
`_MAX_SENT` questions are unanswered by the learner; others wait here, so that a
learner that has stopped is sent a bounded number of bytes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from impala_common.errors import (
    CapacityError,
    InvalidRequestError,
    LearnerUnavailableError,
    rebuild_error,
)
from impala_server.messages import Answer, Call, CallFailed, Json, WithdrawCall, encode

_MAX_PENDING = 64
_MAX_SENT = 64
_MAX_CALL_BYTES = 64 << 10
_TIMEOUT_S = 300.0


class LearnerCalls:
    """Questions under way."""

    def __init__(self, send: Callable[[Call | WithdrawCall], None]) -> None:
        """Asks through `send`, which must not block."""
        self._send = send
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Json]] = {}  # somebody waits for the answer
        self._waiting: dict[int, Call] = {}  # not sent yet, oldest first
        self._sent: set[int] = set()  # not answered yet, withdrawn ones included
        self._is_lost = False

    @property
    def num_pending(self) -> int:
        """Questions whose answers somebody waits for."""
        return len(self._pending)

    async def call(self, command: str, **arguments: Any) -> Json:  # Any: JSON
        """Has the learner carry out a command and returns what it answers.

        Raises:
          ImpalaError: what the learner refused it with.
          InvalidRequestError: the arguments are too long.
          LearnerUnavailableError: it is gone, or does not answer.
          CapacityError: too many are under way.
        """
        if self._is_lost:
            raise LearnerUnavailableError("the learner is gone")
        if len(self._pending) >= _MAX_PENDING:
            raise CapacityError(f"{_MAX_PENDING} commands are under way: wait for them")
        call = Call(next(self._ids), command, arguments)
        if (num_bytes := len(encode(call))) > _MAX_CALL_BYTES:
            raise InvalidRequestError(
                f"{command}: expected at most {_MAX_CALL_BYTES} bytes of arguments, got {num_bytes}"
            )
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._pending[call.call_id] = future
        self._waiting[call.call_id] = call
        try:
            self._send_waiting()
            async with asyncio.timeout(_TIMEOUT_S):
                return await future
        except TimeoutError:
            raise LearnerUnavailableError(
                f"the learner has not answered {command} for {_TIMEOUT_S:g} s"
            ) from None
        finally:
            del self._pending[call.call_id]
            if self._waiting.pop(call.call_id, None) is None and call.call_id in self._sent:
                self._send(WithdrawCall(call.call_id))

    def answer(self, message: Answer | CallFailed) -> None:
        """Takes the answer to one question."""
        self._sent.discard(message.call_id)
        self._send_waiting()
        future = self._pending.get(message.call_id)
        if future is None or future.done():
            return
        if isinstance(message, Answer):
            future.set_result(message.result)
        else:
            future.set_exception(rebuild_error(message.reason, message.text))

    def lose(self) -> None:
        """Fails all questions: the learner is gone."""
        self._is_lost = True
        self._waiting.clear()
        self._sent.clear()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(LearnerUnavailableError("the learner has ended"))

    def _send_waiting(self) -> None:
        while self._waiting and len(self._sent) < _MAX_SENT:
            call_id = next(iter(self._waiting))
            self._sent.add(call_id)
            self._send(self._waiting.pop(call_id))
