"""Questions of the front end to the learner, over the control pipe: each gets one answer.

Owned by the front end's event loop. An answer finds its question by id. The
learner answers between two updates; if it is lost, all questions fail.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from impala_common.errors import CapacityError, LearnerUnavailableError, rebuild_error

_MAX_PENDING = 64
_TIMEOUT_S = 300.0

Result = dict[str, Any]
"""The learner's answer. Any: JSON."""


class LearnerCalls:
    """Questions under way."""

    def __init__(self, send: Callable[..., None]) -> None:
        """Asks through `send` (kind, and fields of JSON)."""
        self._send = send
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Result]] = {}
        self._is_lost = False

    async def call(self, command: str, **arguments: Any) -> Result:  # Any: JSON
        """Has the learner carry out a command; returns its answer.

        Raises:
          ImpalaError: the learner refused it.
          LearnerUnavailableError: it is gone, or does not answer.
          CapacityError: too many are under way.
        """
        if self._is_lost:
            raise LearnerUnavailableError("the learner is gone")
        if len(self._pending) >= _MAX_PENDING:
            raise CapacityError(f"{_MAX_PENDING} commands are under way: wait for them")
        call_id = next(self._ids)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending[call_id] = future
        try:
            self._send("call", id=call_id, command=command, arguments=arguments)
            async with asyncio.timeout(_TIMEOUT_S):
                return await future
        except TimeoutError:
            raise LearnerUnavailableError(
                f"the learner has not answered {command} for {_TIMEOUT_S:g} s"
            ) from None
        finally:
            del self._pending[call_id]

    def answer(self, message: dict[str, Any]) -> None:
        """Takes one "answer" message."""
        future = self._pending.get(message["id"])
        if future is None or future.done():
            return
        failure = message.get("failure")
        if failure is None:
            future.set_result(message["result"])
        else:
            future.set_exception(rebuild_error(failure["reason"], failure["text"]))

    def lose(self) -> None:
        """Fails all questions: the learner is gone."""
        self._is_lost = True
        for future in self._pending.values():
            if not future.done():
                future.set_exception(LearnerUnavailableError("the learner has ended"))
