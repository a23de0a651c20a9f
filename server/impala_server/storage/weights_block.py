"""The published weights in shared memory: one writer, many readers.

Two buffers, each a whole safetensors snapshot, and a header of integers. The learner writes the
older buffer and then marks it as the newest; a reader copies the newest and checks that it was not
overwritten meanwhile (a sequence lock: the buffer's counter is odd while it is written). A copy
fails only if the learner publishes twice meanwhile; the reader then tries again.

A processor such as aarch64 may show a reader the stores of the writer in another order, so that
the counter alone proves nothing. The header therefore holds a digest of each buffer, and a digest
of each header record: a copy counts only if both fit. No memory barrier is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xxhash

from impala_common.codec.weights import SnapshotLayout, digest_of_snapshot
from impala_common.errors import LearnerUnavailableError

_HEADER_BYTES = 4096
_NEWEST, _STEPS, _ACTIVE, _SIZE, _SEQUENCE, _VERSION, _DIGEST, _CHECK = 0, 1, 2, 3, 4, 6, 8, 10
_HEADER_NUMBERS = 12  # from _SEQUENCE on one for each buffer
_MAX_TRIES = 1000
_TWO_TO_64 = 1 << 64


class WeightsSnapshot(NamedTuple):
    """One published version, serialised, in pieces of equal size but for the last.

    Attributes:
      policy_version: its number.
      pieces: the bytes.
      digest: xxh3-64 of all pieces together.
    """

    policy_version: int
    pieces: list[bytes]
    digest: int

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
        self._header = _header_of(buffer)
        self._header[:] = 0
        self._header[_NEWEST] = -1
        self._header[_SIZE] = layout.num_bytes
        stride = _padded(layout.num_bytes)
        starts = (_HEADER_BYTES, _HEADER_BYTES + stride)
        self._memories = [buffer[start : start + layout.num_bytes] for start in starts]
        self.buffers = [layout.make_views(memory) for memory in self._memories]

    def begin(self) -> int:
        """Returns the index of the buffer to write, now marked as being written."""
        target = 1 - int(self._header[_ACTIVE])
        self._header[_SEQUENCE + target] += 1
        return target

    def commit(self, target: int, policy_version: int, trained_steps: int) -> None:
        """Makes the buffer that `begin` named the newest."""
        digest = digest_of_snapshot(self._memories[target])
        self._header[_VERSION + target] = policy_version
        self._header[_DIGEST + target] = _signed(digest)
        self._header[_CHECK + target] = _check_of(policy_version, digest)
        self._header[_SEQUENCE + target] += 1
        self._header[_ACTIVE] = target
        self._header[_STEPS] = trained_steps
        self._header[_NEWEST] = policy_version


class WeightsReader:
    """The front end's side."""

    def __init__(self, buffer: memoryview) -> None:
        """Reads from a block that a WeightsWriter has prepared."""
        self._buffer = buffer
        self._header = _header_of(buffer)

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
            newest = self.policy_version
            active = int(self._header[_ACTIVE])
            before = int(self._header[_SEQUENCE + active])
            version = int(self._header[_VERSION + active])
            digest = int(self._header[_DIGEST + active]) % _TWO_TO_64
            check = int(self._header[_CHECK + active])
            if before % 2 or version < newest or check != _check_of(version, digest):
                continue
            start = _HEADER_BYTES + active * _padded(num_bytes)
            stop = start + num_bytes
            pieces = [
                bytes(self._buffer[place : min(place + piece_bytes, stop)])
                for place in range(start, stop, piece_bytes)
            ]
            is_same = before == int(self._header[_SEQUENCE + active])
            if is_same and digest == digest_of_snapshot(*pieces):
                return WeightsSnapshot(version, pieces, digest)
        raise LearnerUnavailableError("weights change faster than they can be read")


def _header_of(buffer: memoryview) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.ndarray((_HEADER_NUMBERS,), np.int64, buffer)


def _check_of(version: int, digest: int) -> int:
    """Returns a digest of a header record, as a signed number."""
    record = version.to_bytes(8, "little") + digest.to_bytes(8, "little")
    return _signed(xxhash.xxh3_64_intdigest(record))


def _signed(number: int) -> int:
    return number - _TWO_TO_64 if number >= _TWO_TO_64 // 2 else number


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // 4096) * 4096
