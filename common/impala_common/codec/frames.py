"""Packs frame-stacked observations as distinct frames plus an index.

An observation that stacks its newest S frames repeats S-1 of them from one
step to the next. `split_frames` compares frames and never trusts the environment, so the round trip
is exact for any data; after a reset, or where the stack has not moved on by exactly one frame, all
frames of the new stack are taken. It is for finished observations; actors do the same step by step
(`impala_actor.acting.frame_store`). `join_frames` is the inverse, for the event history and tests
(the learner gathers on its device). numpy only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class UniqueFrames(NamedTuple):
    """Distinct frames of N unrolls.

    Attributes:
      frames: [sum(counts), frame...]: frames of the first unroll, then the second ...
      counts: int32 [N]: frames of each unroll.
      frame_index: int32 [T+1, N, S]: for each place the index among its own unroll's frames.
    """

    frames: Array
    counts: Array
    frame_index: Array


def split_frames(observations: Array) -> UniqueFrames:
    """Returns the distinct frames of `observations`.

    Args:
      observations: [T+1, N, S, frame...], newest frame last in S.
    """
    num_rows, num_unrolls, stack = observations.shape[:3]
    moved_on = _moved_on(observations)
    pieces: list[Array] = []
    counts = np.empty(num_unrolls, np.int32)
    frame_index = np.empty((num_rows, num_unrolls, stack), np.int32)
    simple_index = np.arange(num_rows, dtype=np.int32)[:, None] + np.arange(stack, dtype=np.int32)
    for n in range(num_unrolls):
        if moved_on[:, n].all():
            pieces += [observations[0, n], observations[1:, n, -1]]
            counts[n] = stack + num_rows - 1
            frame_index[:, n] = simple_index
            continue
        start = 0
        index = np.arange(stack, dtype=np.int32)
        for t in range(num_rows):
            if t > 0 and moved_on[t - 1, n]:
                pieces.append(observations[t, n, -1:])
                index = np.append(index[1:], np.int32(start))
                start += 1
            else:
                new, index = split_stack(observations[t, n], start)
                pieces.append(new)
                start += len(new)
            frame_index[t, n] = index
        counts[n] = start
    return UniqueFrames(np.concatenate(pieces), counts, frame_index)


def join_frames(unique: UniqueFrames) -> Array:
    """Returns observations [T+1, N, S, frame...] from their distinct frames."""
    starts = np.concatenate([[0], np.cumsum(unique.counts)[:-1]])
    return np.asarray(unique.frames[unique.frame_index + starts[None, :, None]])


def _moved_on(observations: Array) -> Array:
    """Returns bool [T, N]: whether observation t+1 is observation t moved on by one frame."""
    flat = observations.reshape(*observations.shape[:3], -1)
    if flat.dtype.itemsize * flat.shape[-1] % 8 == 0 and flat.flags.c_contiguous:
        flat = flat.view(np.uint64)  # compare eight bytes at a time
    same: Array = (flat[1:, :, :-1] == flat[:-1, :, 1:]).all(axis=(2, 3))
    return same


def split_stack(stack: Array, start: int) -> tuple[Array, Array]:
    """Returns (frames to add, index [S]) of a stack without stored frames.

    Equal neighbours, as after a reset that repeats one frame, are stored once.

    Args:
      stack: [S, ...]: the frames, oldest first.
      start: index of the first frame to add within its unroll.
    """
    is_new = [True] + [not np.array_equal(stack[s], stack[s - 1]) for s in range(1, stack.shape[0])]
    index = start + np.cumsum(is_new).astype(np.int32) - 1
    return stack[np.array(is_new)], index
