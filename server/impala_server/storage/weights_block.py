"""The published weights in shared memory: one writer, many readers.

Two buffers, each a whole safetensors snapshot, and a header of integers. The learner writes the
older buffer and then marks it as the newest; a reader copies the newest and checks that it was not
overwritten meanwhile (a sequence lock: the buffer's counter is odd while it is written). A copy
fails only if the learner publishes twice meanwhile; the reader then tries again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from impala_common.codec.weights import SnapshotLayout
from impala_common.errors import LearnerUnavailableError

_HEADER_BYTES = 4096
_NEWEST, _STEPS, _ACTIVE, _SIZE, _SEQUENCE, _VERSION = 0, 1, 2, 3, 4, 6
_MAX_TRIES = 1000


class WeightsSnapshot(NamedTuple):
    """One published version, serialised, in pieces of equal size but for the last."""

    policy_version: int
    pieces: list[bytes]

    @property
    def data(self) -> bytes:
        """All of it in one piece."""
        return b"".join(self.pieces)


def weights_block_bytes(snapshot_bytes: int) -> int:
    """Returns the size of a block that holds snapshots of `snapshot_bytes`."""
    return _HEADER_BYTES + 2 * _padded(snapshot_bytes)


class WeightsWriter:
    """The learner's side. Used under the learner's update lock."""

    def __init__(self, buffer: memoryview, layout: SnapshotLayout) -> None:
        """Prepares both buffers; nothing is published yet."""
        self._header = np.ndarray((8,), np.int64, buffer)
        self._header[:] = 0
        self._header[_NEWEST] = -1
        self._header[_SIZE] = layout.num_bytes
        stride = _padded(layout.num_bytes)
        starts = (_HEADER_BYTES, _HEADER_BYTES + stride)
        self.buffers = [
            layout.make_views(buffer[start : start + layout.num_bytes]) for start in starts
        ]

    def begin(self) -> int:
        """Returns the index of the buffer to write, now marked as being written."""
        target = 1 - int(self._header[_ACTIVE])
        self._header[_SEQUENCE + target] += 1
        return target

    def commit(self, target: int, policy_version: int, trained_steps: int) -> None:
        """Makes the buffer that `begin` named the newest."""
        self._header[_VERSION + target] = policy_version
        self._header[_SEQUENCE + target] += 1
        self._header[_ACTIVE] = target
        self._header[_STEPS] = trained_steps
        self._header[_NEWEST] = policy_version


class WeightsReader:
    """The front end's side."""

    def __init__(self, buffer: memoryview) -> None:
        """Reads from a block that a WeightsWriter has prepared."""
        self._buffer = buffer
        self._header = np.ndarray((8,), np.int64, buffer)

    @property
    def policy_version(self) -> int:
        """Version of the newest published weights."""
        return int(self._header[_NEWEST])

    @property
    def trained_steps(self) -> int:
        """Agent steps trained on when they were published."""
        return int(self._header[_STEPS])

    def read(self, piece_bytes: int = 1 << 20) -> WeightsSnapshot:
        """Returns a copy of the newest snapshot, in pieces of `piece_bytes`.

        Raises:
          LearnerUnavailableError: the learner overwrote every copy while it was made.
        """
        num_bytes = int(self._header[_SIZE])
        for _ in range(_MAX_TRIES):
            active = int(self._header[_ACTIVE])
            before = int(self._header[_SEQUENCE + active])
            version = int(self._header[_VERSION + active])
            start = _HEADER_BYTES + active * _padded(num_bytes)
            stop = start + num_bytes
            pieces = [
                bytes(self._buffer[place : min(place + piece_bytes, stop)])
                for place in range(start, stop, piece_bytes)
            ]
            if before % 2 == 0 and before == int(self._header[_SEQUENCE + active]):
                return WeightsSnapshot(version, pieces)
        raise LearnerUnavailableError("weights change faster than they can be read")


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // 4096) * 4096
