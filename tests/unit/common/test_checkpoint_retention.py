"""Retention: at least one good checkpoint stays, and none is removed while it is read."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import assert_is, damage_truncate, make_tensors, save

from impala_common.run import checkpoints
from impala_common.run.checkpoint_manifest import MANIFEST
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.folder_lock import hold_folder


@settings(max_examples=60, deadline=None)
@given(
    keep=st.integers(1, 3),
    acts=st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), max_size=10),
)
def test_retention_always_leaves_the_good_ones_it_should(
    keep: int, acts: list[tuple[int, bool, bool]]
) -> None:
    """Runs that train, fall back, and meet damage.

    Seen to fail with retention that keeps the `keep` newest names whatever
    their state: damaged ones pushed out the only good one.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(folder, keep)
        good: list[str] = []
        for step, is_damaged_later, is_manifest in acts:
            before = store.names()
            name = store.save(step, make_tensors(step), {}).name
            good.append(name)
            after = store.names()

            store.load(name)
            not_newer = [*before[: _at(before, name)], name]
            kept = [other for other in not_newer if other in good][-keep:]
            assert set(kept) <= set(after)
            assert set(before) - set(not_newer) <= set(after)
            assert len([other for other in after if other in good and other in not_newer]) <= keep

            good = [other for other in good if other in after]
            if is_damaged_later:
                file = MANIFEST if is_manifest else "weights.safetensors"
                damage_truncate(Path(folder) / name / file)
                good.remove(name)


@settings(max_examples=60, deadline=None)
@given(
    keep=st.integers(1, 3),
    acts=st.lists(
        st.one_of(
            st.tuples(st.just("save"), st.integers(0, 6)),
            st.tuples(st.sampled_from(["name", "damage", "begin", "end"]), st.integers(0, 9)),
        ),
        max_size=14,
    ),
)
def test_retention_spares_names_and_what_is_being_read(
    keep: int, acts: list[tuple[str, int]]
) -> None:
    """Readers begin and end at any time; what they read stays whole under them.

    docs/faults.md, 68. Seen to fail without the readers' lock.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as readers:
        store = CheckpointStore(folder, keep)
        reading: list[tuple[str, contextlib.ExitStack]] = []
        named: list[str] = []
        good: set[str] = set()
        for act, number in acts:
            names = store.all_names()
            if act == "save":
                good.add(store.save(number, make_tensors(number), {}).name)
            elif act == "name":
                named.append(store.save(number, {}, {}, f"mine-{len(named)}").name)
            elif act == "damage" and store.names():
                name = store.names()[number % len(store.names())]
                damage_truncate(Path(folder) / name / MANIFEST)
                good.discard(name)
            elif act == "begin" and names:
                reader = readers.enter_context(contextlib.ExitStack())
                name = names[number % len(names)]
                assert reader.enter_context(hold_folder(Path(folder) / name, fcntl.LOCK_SH))
                reading.append((name, reader))
            elif act == "end" and reading:
                reading.pop(number % len(reading))[1].close()
            after = store.all_names()
            assert {name for name, _ in reading} <= set(after)
            assert set(named) <= set(after)
            good &= set(after)
            if good:
                assert store.load_newest().name in good


def test_load_holds_what_it_reads_and_retention_comes_back_for_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    first = save(store, 1)
    found = []
    read = checkpoints.read_tensors

    def read_slowly(*arguments: Any) -> Any:
        if not found:
            found.append(CheckpointStore(tmp_path, keep=1).save(2, {}, {}).name)
        return read(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "read_tensors", read_slowly)
        assert_is(store.load(first), 1)

    assert store.names() == [first, *found]
    save(store, 3)
    assert store.names() == ["step-000000000003"]


def _at(names: list[str], name: str) -> int:
    """Returns how many of `names`, oldest first, are older than `name`."""
    return sum(checkpoints._order(other) < checkpoints._order(name) for other in names)


def test_load_newest_while_a_writer_removes_old_ones_always_succeeds(tmp_path: Path) -> None:
    """Seen to fail with names listed once: all of them were gone when it came to them."""
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 1)
    is_done = threading.Event()

    def write() -> None:
        try:
            for step in range(2, 100):
                save(store, step)
        finally:
            is_done.set()

    writer = threading.Thread(target=write, name="writer")
    writer.start()
    steps = []
    try:
        while not is_done.is_set():
            steps.append(CheckpointStore(tmp_path).load_newest().step)
    finally:
        writer.join(timeout=30)

    assert steps == sorted(steps)
    assert store.load_newest().step == 99
