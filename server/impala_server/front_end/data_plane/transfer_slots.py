"""TransferSlots: limits simultaneous weights transfers, and so their memory.

Owned by the front end's event loop. A client that reads slowly holds on to the
version it is being sent, so large snapshots have fewer slots.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from impala_common.errors import LearnerUnavailableError

_MAX_SLOTS = 32
_MIN_SLOTS = 8
_MAX_BYTES = 256 << 20
_WAIT_S = 60.0


class TransferSlots:
    """The right to send weights, first come first served."""

    def __init__(self, snapshot_bytes: int, wait_s: float = _WAIT_S) -> None:
        """Makes 8 to 32 slots.

        Args:
          snapshot_bytes: size of one version.
          wait_s: how long a call waits for a slot.
        """
        self.num_transfers = min(_MAX_SLOTS, max(_MIN_SLOTS, _MAX_BYTES // max(snapshot_bytes, 1)))
        self._wait_s = wait_s
        self._free = asyncio.Semaphore(self.num_transfers)

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """A context that has a slot.

        Raises:
          LearnerUnavailableError: none was free in time.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise LearnerUnavailableError(
                f"{self.num_transfers} others have been fetching weights for {self._wait_s:g} s: "
                "try again"
            ) from None
        try:
            yield
        finally:
            self._free.release()
