"""Attempts: how long a client waits before each new stream.

Shared by the blocking and the asyncio client, which do the waiting.
"""

from __future__ import annotations

import logging
import math
import random
import time

from impala_thin.errors import ServerUnavailableError
from impala_thin.hello import ClientSettings
from impala_thin.server_address import describe_proxy

_FIRST_WAIT_S = 0.1
_MAX_WAIT_S = 2.0
_REMIND_S = 10.0
_LOG = logging.getLogger(__name__)


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
        self._reminded_s = -math.inf

    def begin(self) -> None:
        """Says that a server is looked for from now on: `connect_timeout_s` counts from here."""
        self._start_s = time.monotonic()

    def note_answer(self) -> None:
        """Says that the server has chosen actions: the next wait is the shortest again."""
        self._wait_s = _FIRST_WAIT_S

    def next_wait_s(self, why: object) -> float:
        """Returns the seconds to wait before the next stream, with jitter.

        Logs what is waited for and why, at first and every ten seconds.

        Raises:
          ServerUnavailableError: the time is over; `why` is in the text.
        """
        limit_s, server = self._settings.connect_timeout_s, self._settings.server
        place, now_s = f"{server}{describe_proxy(server)}", time.monotonic()
        if limit_s and now_s - self._start_s > limit_s:
            raise ServerUnavailableError(f"no policy server at {place} within {limit_s:g} s: {why}")
        if now_s - self._reminded_s >= _REMIND_S:
            self._reminded_s = now_s
            _LOG.warning("waiting for the policy server at %s: %s", place, why)
        wait_s = self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        self._wait_s = min(2 * self._wait_s, _MAX_WAIT_S)
        return wait_s
