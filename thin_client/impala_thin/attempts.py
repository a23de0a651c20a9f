"""Attempts: how long a client waits before each new stream.

Shared by the blocking and the asyncio client, which do the waiting.
"""

from __future__ import annotations

import random
import time

from impala_thin.errors import ServerUnavailableError
from impala_thin.hello import ClientSettings
from impala_thin.server_address import describe_proxy

_FIRST_WAIT_S = 0.1
_MAX_WAIT_S = 2.0


class Attempts:
    """Waits that get longer until an answer comes, however many streams are opened meanwhile.

    A welcome alone does not make them short again: a server that welcomes everybody and ends each
    stream at once would otherwise be asked hundreds of times a second.
    """

    def __init__(self, settings: ClientSettings) -> None:
        """Begins now, with the shortest wait."""
        self._settings = settings
        self._start_s = time.monotonic()
        self._wait_s = _FIRST_WAIT_S

    def begin(self) -> None:
        """Says that a server is looked for from now on: `connect_timeout_s` counts from here."""
        self._start_s = time.monotonic()

    def note_answer(self) -> None:
        """Says that the server has chosen actions: the next wait is the shortest again."""
        self._wait_s = _FIRST_WAIT_S

    def next_wait_s(self, why: object) -> float:
        """Returns the seconds to wait before the next stream, with jitter.

        Raises:
          ServerUnavailableError: the time is over; `why` is in the text.
        """
        limit_s = self._settings.connect_timeout_s
        if limit_s and time.monotonic() - self._start_s > limit_s:
            server = self._settings.server
            raise ServerUnavailableError(
                f"no policy server at {server}{describe_proxy(server)} within {limit_s:g} s: {why}"
            )
        wait_s = self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        self._wait_s = min(2 * self._wait_s, _MAX_WAIT_S)
        return wait_s
