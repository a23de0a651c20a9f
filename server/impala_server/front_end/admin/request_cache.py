"""RequestCache: the same request id gets the same answer for ten minutes.

Owned by the front end's event loop. A change runs in a task of its own, which goes on if its client
disconnects. A second request with the same id waits for the same task. Knows nothing of gRPC.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from impala_common.errors import CapacityError, InvalidRequestError, LearnerUnavailableError
from impala_common.process.logs import printable

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEEP_S = 600.0
_CAPACITY = 4096


class _Entry(NamedTuple):
    """One change: the content of its request, and its task."""

    content: bytes
    task: asyncio.Task[Any]
    begun_s: float


class RequestCache:
    """Changes of the last ten minutes, by request id."""

    def __init__(self, clock: Callable[[], float], capacity: int = _CAPACITY) -> None:
        """Starts empty; `clock` is monotonic."""
        self._clock = clock
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def once(
        self,
        request_id: str,
        content: bytes,
        change: Callable[[], Coroutine[Any, Any, Any]],
        timeout_s: float,
    ) -> Any:  # Any: the change's result
        """Returns the result of `change`; runs it only if the id is new.

        Args:
          request_id: the client's id of this change.
          content: the request as bytes; one id belongs to one content.
          change: makes the change.
          timeout_s: how long to wait for it; it goes on afterwards.

        Raises:
          InvalidRequestError: no id, or an id that was used for another content.
          CapacityError: too many changes in ten minutes.
          LearnerUnavailableError: not done within `timeout_s`.
          ImpalaError: the error that the change raised; the same again for the same id.
        """
        if not _REQUEST_ID.fullmatch(request_id):
            raise InvalidRequestError(
                f"request_id '{printable(request_id, 80)}': expected 1 to 64 letters, digits, "
                "'.', '_' or '-', the first a letter or digit, new for each change"
            )
        self._forget_old()
        entry = self._entries.get(request_id)
        if entry is None:
            if len(self._entries) >= self._capacity:
                raise CapacityError(f"{self._capacity} changes within {KEEP_S:g} s: wait")
            task = asyncio.get_running_loop().create_task(change())
            task.add_done_callback(_look_at_error)
            entry = self._entries[request_id] = _Entry(content, task, self._clock())
        elif entry.content != content:
            raise InvalidRequestError(
                f"request_id {request_id} was used for another request: take a new one"
            )
        try:
            return await _wait(entry.task, timeout_s)
        except TimeoutError:
            raise LearnerUnavailableError(
                f"not done within {timeout_s:g} s, and still under way: ask again with request_id "
                f"{request_id}"
            ) from None

    def _forget_old(self) -> None:
        while self._entries:
            request_id, entry = next(iter(self._entries.items()))
            if self._clock() - entry.begun_s < KEEP_S or not entry.task.done():
                return
            del self._entries[request_id]


async def _wait(task: Awaitable[Any], timeout_s: float) -> Any:
    async with asyncio.timeout(timeout_s):
        return await asyncio.shield(task)


def _look_at_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # read it: asyncio warns of errors that are never retrieved
