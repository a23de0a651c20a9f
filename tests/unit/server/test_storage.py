"""Rollout storage: nothing overlaps, columns fill in order, and room is accounted for."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_common.codec.frames import UniqueFrames, join_frames
from impala_common.codec.unrolls import Unrolls
from impala_common.spec.specs import UnrollSpec
from impala_common.testing.unrolls import (
    make_frames_spec,
    make_unrolls,
    make_vector_spec,
    split_unrolls,
)
from impala_server.storage.batch_slots import BatchSlots
from impala_server.storage.layout import (
    FRAME_INDEX,
    FRAMES,
    ORIGIN,
    POLICY_VERSION,
    SlotViews,
    StorageLayout,
    UnrollOrigin,
)
from impala_server.storage.shared_block import SharedBlock

ORIGIN_OF_ALL = UnrollOrigin(0, 1, 1)
MAKE_SPEC: list[Callable[[], UnrollSpec]] = [make_vector_spec, make_frames_spec]


def make_slots(
    spec: UnrollSpec, batch_size: int, num_slots: int
) -> tuple[BatchSlots, list[SlotViews]]:
    layout = StorageLayout(spec, batch_size, num_slots)
    buffer = memoryview(mmap.mmap(-1, layout.num_bytes))
    return BatchSlots(layout, buffer), layout.make_views(buffer)


def decoded(spec: UnrollSpec, num_unrolls: int, seed: int) -> Unrolls:
    """Returns random unrolls as the decoder would."""
    return split_unrolls(make_unrolls(spec, num_unrolls, seed), spec)


def observations(spec: UnrollSpec, views: SlotViews) -> Any:
    """Returns the observations of a slot, [T+1, B, ...]."""
    if not spec.uses_unique_frames:
        return views["observation"]
    batch_size, max_frames = views[FRAMES].shape[:2]
    counts = np.full(batch_size, max_frames, np.int32)
    flat = views[FRAMES].reshape(-1, *views[FRAMES].shape[2:])
    return join_frames(UniqueFrames(flat, counts, views[FRAME_INDEX]))


@pytest.mark.parametrize("make_spec", MAKE_SPEC)
def test_layout_places_do_not_overlap_and_are_aligned(make_spec: Callable[[], UnrollSpec]) -> None:
    layout = StorageLayout(make_spec(), batch_size=3, num_batch_slots=4)
    memory = np.zeros(layout.num_bytes, np.uint8)
    start = memory.__array_interface__["data"][0]
    slots = layout.make_views(memoryview(memory))

    for views in slots:
        for name, view in views.items():
            assert view.flags.c_contiguous
            assert (view.__array_interface__["data"][0] - start) % 64 == 0, name
            view.reshape(-1).view(np.uint8)[...] += 1

    assert memory.max() == 1, "two places share a byte"
    assert memory.sum() == sum(view.nbytes for views in slots for view in views.values())


@pytest.mark.parametrize("make_spec", MAKE_SPEC)
def test_layout_of_a_slot_has_every_leaf_of_a_batch(make_spec: Callable[[], UnrollSpec]) -> None:
    spec = make_spec()
    views = StorageLayout(spec, batch_size=3, num_batch_slots=1).make_views(
        memoryview(bytearray(1 << 20))
    )

    for leaf in spec.leaves:
        name = leaf.tensor.name
        if spec.uses_unique_frames and name == "observation":
            assert views[0][FRAMES].shape == (3, spec.max_frames, 4, 4)
            assert views[0][FRAME_INDEX].shape == (5, 3, 3)
            continue
        assert views[0][name].shape == leaf.shape(spec.unroll_length, 3)
        assert views[0][name].dtype == leaf.tensor.dtype


@pytest.mark.parametrize("make_spec", MAKE_SPEC)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_write_across_batches_keeps_unrolls_in_order(
    make_spec: Callable[[], UnrollSpec], sizes: list[int], seed: int
) -> None:
    """Seen to fail with a source that begins at 0 again in the second batch of a message."""
    spec, batch_size = make_spec(), 3
    num_slots = -(-sum(sizes) // batch_size)
    slots, views = make_slots(spec, batch_size, num_slots)
    messages = [decoded(spec, size, seed + k) for k, size in enumerate(sizes)]

    full_slots = []
    for k, message in enumerate(messages):
        first = 0
        while first < message.num_unrolls:
            count, full = slots.write(message, first, 100 + k, UnrollOrigin(k, 7, 1000 + k))
            assert count > 0
            first += count
            if full is not None:
                full_slots.append(full)

    assert full_slots == list(range(sum(sizes) // batch_size))
    assert slots.num_open_columns == sum(sizes) % batch_size
    column = 0
    for k, message in enumerate(messages):
        wanted = dict(message.leaves)
        if message.frames is not None:
            wanted["observation"] = join_frames(message.frames)
        for n in range(message.num_unrolls):
            slot, place = views[column // batch_size], column % batch_size
            assert slot[POLICY_VERSION][place] == 100 + k
            assert slot[ORIGIN][place].tolist() == [k, 7, 1000 + k, n]
            for leaf in spec.leaves:
                name = leaf.tensor.name
                stored = observations(spec, slot) if name == "observation" else slot[name]
                got = stored[place] if leaf.rows == "none" else stored[:, place]
                want = wanted[name][n] if leaf.rows == "none" else wanted[name][:, n]
                np.testing.assert_array_equal(got, want, err_msg=name)
            column += 1


def test_write_without_free_slot_writes_nothing_until_release() -> None:
    spec = make_vector_spec()
    slots, views = make_slots(spec, batch_size=2, num_slots=2)
    message = decoded(spec, 5, seed=1)

    assert (slots.num_free_slots, slots.num_open_columns, slots.has_room()) == (2, 0, True)
    assert slots.write(message, 0, 0, ORIGIN_OF_ALL) == (2, 0)
    assert slots.write(message, 2, 0, ORIGIN_OF_ALL) == (2, 1)
    assert (slots.num_free_slots, slots.num_open_columns, slots.has_room()) == (0, 0, False)
    before = views[0]["rewards"].copy()
    assert slots.write(message, 4, 0, ORIGIN_OF_ALL) == (0, None)
    np.testing.assert_array_equal(views[0]["rewards"], before)

    slots.release(0)

    assert (slots.num_free_slots, slots.has_room()) == (1, True)
    assert slots.write(message, 4, 0, ORIGIN_OF_ALL) == (1, None)
    assert (slots.num_free_slots, slots.num_open_columns, slots.has_room()) == (0, 1, True)
    np.testing.assert_array_equal(views[0]["rewards"][:, 0], message.leaves["rewards"][:, 4])


def test_has_room_for_several_counts_the_open_slot_and_free_ones() -> None:
    slots, _ = make_slots(make_vector_spec(), batch_size=2, num_slots=2)
    message = decoded(make_vector_spec(), 5, seed=1)

    assert [slots.has_room(n) for n in (4, 5)] == [True, False]
    slots.write(message, 4, 0, ORIGIN_OF_ALL)
    assert [slots.has_room(n) for n in (3, 4)] == [True, False]
    slots.write(message, 4, 0, ORIGIN_OF_ALL)
    assert [slots.has_room(n) for n in (2, 3)] == [True, False]


def test_write_reuses_slots_in_the_order_of_their_release() -> None:
    spec = make_vector_spec()
    slots, _ = make_slots(spec, batch_size=1, num_slots=3)
    message = decoded(spec, 1, seed=1)
    full = [slots.write(message, 0, 0, ORIGIN_OF_ALL)[1] for _ in range(3)]

    for slot in (2, 0, 1):
        slots.release(slot)

    assert full == [0, 1, 2]
    assert [slots.write(message, 0, 0, ORIGIN_OF_ALL)[1] for _ in range(3)] == [2, 0, 1]


def test_shared_block_mapped_through_two_descriptors_is_the_same_memory() -> None:
    block = SharedBlock.create("test-block")
    other = SharedBlock(os.dup(block.fd))
    block.resize(4096)
    one, two = block.map(), other.map()
    block.close()
    other.close()

    one[7] = 42

    assert two[7] == 42  # the memory outlives the descriptors
    assert (block.fd, other.fd) == (-1, -1)
