"""TransferSlots: limits simultaneous weights transfers, and so their memory.

Owned by the front end's event loop. Memory of a version is held until its slowest reader is done,
so large snapshots have fewer slots.
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
    """A counting semaphore over weights transfers, first come first served."""

    def __init__(
        self, snapshot_bytes: int, wait_s: float = _WAIT_S, num_transfers: int | None = None
    ) -> None:
        """Makes 8 to 32 slots, or `num_transfers`.

        Args:
          snapshot_bytes: size of one version.
          wait_s: how long a call waits for a slot.
          num_transfers: how many; None: as many as `snapshot_bytes` allows.
        """
        by_size = min(_MAX_SLOTS, max(_MIN_SLOTS, _MAX_BYTES // max(snapshot_bytes, 1)))
        self.num_transfers = by_size if num_transfers is None else num_transfers
        self._wait_s = wait_s
        self._free = asyncio.Semaphore(self.num_transfers)

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Returns a context that holds a slot.

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
