"""Splitting stacks into distinct frames is exact for any data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from impala_common.codec.frames import join_frames, split_frames
from impala_common.testing.unrolls import make_frames_spec, make_unrolls

# Few values and small frames: equal frames, repeats and chance matches are common.
OBSERVATIONS = st.tuples(
    st.integers(2, 5), st.integers(1, 3), st.integers(2, 4), st.sampled_from([(1,), (2, 4), (8,)])
).flatmap(
    lambda dims: hnp.arrays(
        np.uint8, (*dims[:3], *dims[3]), elements=st.integers(0, 1), fill=st.nothing()
    )
)


@given(observations=OBSERVATIONS)
@settings(max_examples=300, deadline=None)
def test_join_frames_of_split_ones_gives_any_data_back(observations: Any) -> None:
    """Seen to fail with a comparison of the newest frames only, and with one of the oldest only."""
    unique = split_frames(observations)

    np.testing.assert_array_equal(join_frames(unique), observations)
    num_rows, num_unrolls, stack = observations.shape[:3]
    assert unique.counts.sum() == len(unique.frames)
    assert unique.counts.max() <= num_rows * stack
    assert unique.frame_index.shape == (num_rows, num_unrolls, stack)
    assert unique.frame_index.min() >= 0
    assert (unique.frame_index < unique.counts[:, None]).all()


@given(data=st.data(), is_reset=st.lists(st.booleans(), min_size=4, max_size=8))
@settings(max_examples=100, deadline=None)
def test_join_frames_of_moving_stacks_with_resets_gives_them_back(
    data: st.DataObject, is_reset: list[bool]
) -> None:
    stack, rows = 3, [np.zeros((3, 2, 2), np.uint8)]
    for t, reset in enumerate(is_reset):
        frame = np.full((2, 2), data.draw(st.integers(0, 3)) + 4 * t, np.uint8)
        fresh = np.repeat(frame[None], stack, axis=0)
        rows.append(fresh if reset else np.concatenate([rows[-1][1:], frame[None]]))
    observations = np.stack(rows)[:, None]

    unique = split_frames(observations)

    np.testing.assert_array_equal(join_frames(unique), observations)
    assert len(unique.frames) <= stack + len(is_reset)  # each row brought one frame at most


def test_split_frames_without_reset_takes_each_frame_once() -> None:
    frames = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2)
    observations = np.stack([frames[t : t + 4] for t in range(7)])[:, None]

    unique = split_frames(observations)

    np.testing.assert_array_equal(unique.frames, frames)
    np.testing.assert_array_equal(unique.counts, [10])


def test_split_frames_of_one_unroll_with_reset_leaves_the_others_compact() -> None:
    frames = np.arange(2 * 10 * 4, dtype=np.uint8).reshape(2, 10, 2, 2)
    observations = np.stack([frames[:, t : t + 4] for t in range(7)])
    observations[3, 1] = 255

    unique = split_frames(observations)

    np.testing.assert_array_equal(join_frames(unique), observations)
    assert unique.counts[0] == 10


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("layout", ["contiguous", "swapped axes"])
def test_split_frames_of_any_layout_gives_the_same(dtype: Any, layout: str) -> None:
    spec = make_frames_spec(unroll_length=6)
    observations = make_unrolls(spec, 3, seed=5)["observation"].astype(dtype)
    if layout == "swapped axes":
        observations = np.ascontiguousarray(observations.swapaxes(0, 1)).swapaxes(0, 1)

    np.testing.assert_array_equal(join_frames(split_frames(observations)), observations)
