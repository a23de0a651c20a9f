"""FrameStore: the distinct frames of N unrolls of frame stacks, each kept once.

Owned by UnrollBuilder. A new observation is compared with the stored frames of the observation
before, while both are in the cache; the environment is not trusted to stack frames. The result is
byte for byte that of `split_frames` on the finished unrolls.

A slot is in step if its stack has moved on by one frame at every row since `begin`: the newest
frames of all such slots have the same place, and are compared and stored in one operation. Any
other slot is a `_LooseSlot` with frames of its own until the next `begin`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from impala_common.codec.frames import UniqueFrames, split_stack
from impala_common.spec.specs import UnrollSpec

Array = np.ndarray[Any, Any]


class FrameStore:
    """The distinct frames of N slots, at most UnrollSpec.max_frames of each."""

    def __init__(self, spec: UnrollSpec, num_slots: int) -> None:
        """Prepares for N unrolls of `spec`, whose observation is a stack; `begin` comes first."""
        leaf, length = spec.frame_leaf, spec.unroll_length
        stack, *frame_shape = leaf.shape
        self._stack, self._dtype = stack, np.dtype(leaf.dtype)
        # Compare as integers, as wide as a line of a frame allows: then NaN equals NaN.
        *lines, line = frame_shape or [1]
        line_bytes = line * self._dtype.itemsize
        word_bytes = next(size for size in (8, 4, 2, 1) if line_bytes % size == 0)
        self._word = np.dtype(f"u{word_bytes}")
        shape = (*lines, line_bytes // word_bytes) if frame_shape else ()
        self._frame_shape = tuple(frame_shape)
        self._words = np.empty((num_slots, stack + length, *shape), self._word)
        # For row t, the places of its older frames, filled by the row before, and of its newest
        # one. Made once: making a view takes nearly as long as a step of one slot.
        self._known = [self._words[:, t : t + stack - 1] for t in range(length + 1)]
        self._newest = [self._words[:, t + stack - 1] for t in range(length + 1)]
        self._is_same = bytearray(self._known[0].size)
        self._same = np.frombuffer(self._is_same, np.bool_).reshape(self._known[0].shape)
        places = np.arange(length + 1, dtype=np.int32)[:, None] + np.arange(stack, dtype=np.int32)
        self._index = np.repeat(places[:, None], num_slots, axis=1)  # [T+1, N, S], all in step
        self._counts = np.full(num_slots, stack + length, np.int32)
        self._in_step = np.ones(num_slots, np.bool_)
        self._loose: dict[int, _LooseSlot] = {}
        self._row = 0

    def begin(self, observations: Array) -> None:
        """Starts the next unrolls with observation 0, [N, S, frame...], newest frame last in S."""
        self._row = 0
        self._loose.clear()
        self._in_step[:] = True
        self._words[:, : self._stack] = self._words_of(observations)

    def add(self, observations: Array) -> None:
        """Adds the next observation, [N, S, frame...]; the array may be used again."""
        self._row += 1
        observed = self._words_of(observations)
        np.equal(self._known[self._row], observed[:, :-1], out=self._same)
        if 0 in self._is_same or self._loose:  # searching bytes is faster than searching an array
            self._add_apart(observed)
        # Write every slot (faster than masking); loose slots ignore it.
        self._newest[self._row][...] = observed[:, -1]

    def unique_frames(self) -> UniqueFrames:
        """Returns the frames of all T+1 observations, valid until the next `begin`."""
        counts, index = self._counts, self._index
        frames = self._words.reshape(-1, *self._words.shape[2:])
        if self._loose:
            counts, index = counts.copy(), index.copy()
            pieces: list[Array] = []
            for n, words in enumerate(self._words):
                if (loose := self._loose.get(n)) is None:
                    pieces.append(words)
                    continue
                pieces += loose.pieces
                counts[n], index[:, n] = loose.count, loose.rows
            frames = np.concatenate(pieces)
        return UniqueFrames(frames.view(self._dtype).reshape(-1, *self._frame_shape), counts, index)

    def _add_apart(self, observed: Array) -> None:
        """Adds an observation to the slots that are not in step."""
        num_places = self._row + self._stack - 1  # filled by slots in step
        moved_on = self._same.reshape(len(self._same), -1).all(axis=1)
        for n in np.flatnonzero(self._in_step & ~moved_on).tolist():
            self._loose[n] = _LooseSlot(self._words[n, :num_places], self._stack)
            self._in_step[n] = False
        for n, loose in self._loose.items():
            loose.add(observed[n])

    def _words_of(self, observations: Array) -> Array:
        return np.ascontiguousarray(observations, self._dtype).view(self._word)


class _LooseSlot:
    """The frames of one slot that is not in step, from row 0 of the unroll.

    Attributes:
      pieces: its distinct frames in order, each [any number, frame...].
      count: number of these frames.
      rows: for each row the indices of the frames in its stack, int32 [S].
    """

    def __init__(self, frames: Array, stack: int) -> None:
        """Copies the rows so far.

        Args:
          frames: the first stack and the newest frame of each row after it; unchanged until the
            next unroll.
          stack: S.
        """
        first, index = split_stack(frames[:stack], 0)
        self.pieces = [first, frames[stack:]]
        self.count = len(first) + len(frames) - stack
        places = np.append(index, np.arange(len(first), self.count, dtype=np.int32))
        self.rows = list(np.lib.stride_tricks.sliding_window_view(places, stack))
        self._last = frames[-stack:].copy()

    def add(self, stack: Array) -> None:
        """Adds a row, [S, frame...]."""
        if np.array_equal(stack[:-1], self._last[1:]):
            new = stack[-1:].copy()
            index = np.append(self.rows[-1][1:], np.int32(self.count))
        else:
            new, index = split_stack(stack, self.count)
        self.pieces.append(new)
        self.rows.append(index)
        self.count += len(new)
        self._last[:] = stack
