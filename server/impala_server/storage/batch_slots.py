"""BatchSlots: writes unrolls into batch slots, column by column.

Owned by the front end's event loop, the only writer. A free slot is opened, its columns are filled
by unrolls in order of arrival; when the last column is written, the slot is handed to the learner
and another is opened. When no slot is free, nothing is written and the intake waits: that is the
back-pressure.
Knows nothing of gRPC or asyncio.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from impala_common.codec.unrolls import Unrolls
from impala_server.storage.layout import (
    FRAME_INDEX,
    FRAMES,
    ORIGIN,
    POLICY_VERSION,
    SlotViews,
    StorageLayout,
    UnrollOrigin,
)


class BatchSlots:
    """Free, open and full batch slots of one shared block."""

    def __init__(self, layout: StorageLayout, buffer: memoryview) -> None:
        """Maps all slots of `layout` in `buffer`, all of them free."""
        self._layout = layout
        self._views = layout.make_views(buffer)
        self._free: deque[int] = deque(range(layout.num_batch_slots))
        self._open: int | None = None
        self._column = 0  # next column of the open slot

    @property
    def num_free_slots(self) -> int:
        """Slots without unrolls."""
        return len(self._free)

    @property
    def num_open_columns(self) -> int:
        """Unrolls in the open slot, whose batch is not complete yet."""
        return self._column if self._open is not None else 0

    @property
    def num_queued(self) -> int:
        """Unrolls in storage: in the open slot, waiting for the learner, or being trained on."""
        num_whole = self._layout.num_batch_slots - len(self._free) - (self._open is not None)
        return num_whole * self._layout.batch_size + self.num_open_columns

    @property
    def fill(self) -> float:
        """Share of rollout storage in use, 0 to 1: being filled, waiting, or trained on."""
        return self.num_queued / (self._layout.num_batch_slots * self._layout.batch_size)

    def has_room(self, num_unrolls: int = 1) -> bool:
        """Returns whether that many columns can be written now."""
        num_free = len(self._free) * self._layout.batch_size
        if self._open is not None:
            num_free += self._layout.batch_size - self._column
        return num_unrolls <= num_free

    def release(self, slot: int) -> None:
        """Takes back a slot that the learner has finished with."""
        self._free.append(slot)

    def write(
        self, unrolls: Unrolls, first: int, policy_version: int, origin: UnrollOrigin
    ) -> tuple[int, int | None]:
        """Writes as many unrolls as the open slot has columns for.

        Args:
          unrolls: N checked unrolls.
          first: index of the first one to write.
          policy_version: version of the weights that acted.
          origin: actor, session and message that they came with.

        Returns:
          (number of unrolls written, slot that became full or None). Zero when
          there is no room.
        """
        if self._open is None:
            if not self._free:
                return 0, None
            self._open, self._column = self._free.popleft(), 0
        views = self._views[self._open]
        count = min(self._layout.batch_size - self._column, unrolls.num_unrolls - first)
        columns = slice(self._column, self._column + count)
        source = slice(first, first + count)
        for name, is_time_major in self._layout.time_major.items():
            if is_time_major:
                views[name][:, columns] = unrolls.leaves[name][:, source]
            else:
                views[name][columns] = unrolls.leaves[name][source]
        if unrolls.frames is not None:
            _write_frames(views, unrolls, self._column, source)
        views[POLICY_VERSION][columns] = policy_version
        views[ORIGIN][columns, :3] = origin
        views[ORIGIN][columns, 3] = np.arange(first, first + count)
        self._column += count
        if self._column < self._layout.batch_size:
            return count, None
        full, self._open = self._open, None
        return count, full


def _write_frames(views: SlotViews, unrolls: Unrolls, column: int, source: slice) -> None:
    frames = unrolls.frames
    assert frames is not None
    starts = frames.counts.cumsum() - frames.counts
    for offset, n in enumerate(range(source.start, source.stop)):
        start, count = int(starts[n]), int(frames.counts[n])
        views[FRAMES][column + offset, :count] = frames.frames[start : start + count]
        views[FRAME_INDEX][:, column + offset] = frames.frame_index[:, n]
