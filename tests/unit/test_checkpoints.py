"""Checkpoints: whole or not there, damage noticed, never fewer than one good."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_common import checkpoint_manifest, checkpoints, failpoints
from impala_common.checkpoint_manifest import MANIFEST, Manifest, pack_manifest
from impala_common.checkpoints import CheckpointStore
from impala_common.errors import AlreadyExistsError, CheckpointError, InvalidRequestError

FILES = (MANIFEST, "weights.safetensors", "optimizer.safetensors")


def make_tensors(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return {
        "weights": {
            "a/weight": random.normal(size=(3, 4)).astype(np.float32),
            "a/bias": random.normal(size=4),
        },
        "optimizer": {"step": np.array(seed), "mask": random.random(5) < 0.5},
    }


def save(store: CheckpointStore, step: int) -> str:
    return store.save(step, make_tensors(step), {"updates": step, "nested": {"x": [step]}}).name


def assert_is(checkpoint: checkpoints.Checkpoint, step: int) -> None:
    assert checkpoint.step == step
    assert checkpoint.state == {"updates": step, "nested": {"x": [step]}}
    for group, arrays in make_tensors(step).items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(checkpoint.tensors[group][name], array, strict=True)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.array(3),
        np.zeros((0, 4), np.float32),
        np.array([np.nan, -0.0, np.inf]),
        np.arange(10, dtype=np.uint8)[::2],
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
    ],
    ids=["transposed", "scalar", "empty", "special", "strided", "bool", "big-endian"],
)
def test_save_then_load_returns_the_same_bits(tmp_path: Path, array: np.ndarray) -> None:
    """Seen to fail for the transposed one with np.asarray lacking order="C"."""
    store = CheckpointStore(tmp_path)

    store.save(1, {"weights": {"x": array}, "nothing": {}}, {})
    loaded = store.load_newest().tensors

    assert loaded["weights"]["x"].shape == array.shape
    assert loaded["weights"]["x"].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()
    assert loaded["weights"]["x"].flags.writeable
    assert loaded["nothing"] == {}


def test_state_with_number_keys_is_readable(tmp_path: Path) -> None:
    """Seen to fail with a digest over the state as given: 2 sorts before 10, "2" after "10"."""
    store = CheckpointStore(tmp_path)

    store.save(1, {}, {"counts": {2: "a", 10: "b"}})

    assert store.load_newest().state == {"counts": {"2": "a", "10": "b"}}


def test_save_twice_at_one_step_keeps_both_and_loads_the_later(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)

    names = [store.save(7, {}, {"try": number}).name for number in range(12)][-3:]

    assert names == ["step-000000000007-10", "step-000000000007-11", "step-000000000007-12"]
    assert store.names() == names
    assert store.load_newest().state == {"try": 11}


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n{}")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_remove(path: Path) -> None:
    path.unlink()


def damage_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def damage_nesting(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def damage_link(path: Path) -> None:
    shutil.copy(path, path.parent.parent / "elsewhere")
    path.unlink()
    path.symlink_to(path.parent.parent / "elsewhere")


def damage_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_load_newest_with_damaged_file_walks_back_and_says_so(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    file: str,
) -> None:
    """Seen to fail for links without O_NOFOLLOW."""
    store = CheckpointStore(tmp_path)
    save(store, 1)
    damage(tmp_path / save(store, 2) / file)

    with caplog.at_level(logging.WARNING):
        assert_is(store.load_newest(), 1)

    assert "step-000000000002" in caplog.text


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_load_with_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    """Seen to fail without the sha256 of files, and without the manifest's own digest."""
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(folder)
        name = save(store, 5)
        path = Path(folder) / name / data.draw(st.sampled_from(FILES))
        contents = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(contents) - 1))
        contents[bit // 8] ^= 1 << bit % 8
        path.write_bytes(contents)

        with pytest.raises(CheckpointError, match=name):
            store.load(name)


def test_load_newest_without_a_good_one_names_each(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        store.load_newest()
    for step in (1, 2):
        damage_truncate(tmp_path / save(store, step) / MANIFEST)

    with pytest.raises(CheckpointError, match=r"no undamaged.*step-0*2.*step-0*1"):
        store.load_newest()


def save_and_be_killed(path: Path, at: int) -> bool:
    """Saves step 2 in a child killed before its `at`-th durable act; returns whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(act: Callable[..., Any]) -> Callable[..., Any]:
            def act_or_die(*arguments: Any, **keywords: Any) -> Any:
                nonlocal count
                count += 1
                if count == at:
                    os._exit(9)
                return act(*arguments, **keywords)

            return act_or_die

        os.fsync, os.rename, os.mkdir = counted(os.fsync), counted(os.rename), counted(os.mkdir)
        try:
            save(CheckpointStore(path, keep=1), 2)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 9


def test_kill_at_any_point_of_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Seen to fail with files written straight into the checkpoint's own folder."""
    for at in range(1, 100):
        path = tmp_path / str(at)
        save(CheckpointStore(path, keep=1), 1)

        was_killed = save_and_be_killed(path, at)

        store = CheckpointStore(path, keep=1)
        newest = store.load_newest()
        assert_is(newest, newest.step)
        for name in store.names():
            store.load(name)
        save(store, 3)
        assert [entry.name for entry in path.iterdir()] == ["step-000000000003"]
        if not was_killed:
            break
    assert at >= 10  # temp dir, 2 files, manifest, 2 folders, 2 renames, ...


@pytest.mark.parametrize("failing_file", range(3))
def test_save_when_disk_is_full_says_so_and_keeps_the_previous(
    tmp_path: Path, failing_file: int
) -> None:
    """Seen to fail, with the temporary folder left behind, without the `finally`."""
    store = CheckpointStore(tmp_path)
    save(store, 1)

    with (
        failpoints.armed(f"checkpoint.mid_write=@{failing_file + 1}:raise:oserror"),
        pytest.raises(CheckpointError, match=r"step 2 .*no space left") as caught,
    ):
        save(store, 2)

    assert isinstance(caught.value.__cause__, OSError)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000000000001"]
    assert_is(store.load_newest(), 1)
    assert save(store, 2) == "step-000000000002"


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

    Row 68. Seen to fail without the readers' lock.
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
                assert reader.enter_context(checkpoints._held(Path(folder) / name, fcntl.LOCK_SH))
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


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc", "a/b", "a\0b", "a\n", "-a", ".tmp-1", "x" * 65, "ä", "a\\b"],
)
def test_load_of_unsafe_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="expected 1 to 64"):
        CheckpointStore(tmp_path).load(name)
    with pytest.raises(CheckpointError, match="expected 1 to 64"):
        CheckpointStore(tmp_path).save(1, {name: {}}, {})
    assert list(tmp_path.iterdir()) == []


def plant(path: Path, manifest: bytes, **files: bytes) -> CheckpointStore:
    """Makes a checkpoint by hand."""
    folder = path / "step-000000000001"
    folder.mkdir()
    (folder / MANIFEST).write_bytes(manifest)
    for name, data in files.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    return CheckpointStore(path)


CANARY = b"cos\nsystem\n(S'touch canary'\ntR."
"""A pickle that would run a command."""


@pytest.mark.parametrize(
    "data",
    [
        CANARY,
        b"PK\x03\x04" + CANARY,
        b"\xff" * 64,
        (2**40).to_bytes(8, "little") + b"{}",
        (60).to_bytes(8, "little")
        + b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}'.ljust(60)
        + b"1234",
    ],
    ids=["pickle", "zip", "noise", "huge header", "shape and size differ"],
)
def test_load_of_foreign_tensors_with_right_digest_is_refused(tmp_path: Path, data: bytes) -> None:
    entry = (hashlib.sha256(data).hexdigest(), len(data))
    manifest = pack_manifest(Manifest(step=1, state={}, files={"weights.safetensors": entry}))
    store = plant(tmp_path, manifest, weights=data)

    with pytest.raises(CheckpointError, match="expected safetensors"):
        store.load("step-000000000001")

    assert not Path("canary").exists()


@pytest.mark.parametrize("file", ["../../x.safetensors", "/x.safetensors", "x.pt", ".safetensors"])
def test_load_of_manifest_that_points_elsewhere_is_refused(tmp_path: Path, file: str) -> None:
    manifest = pack_manifest(Manifest(step=1, state={}, files={file: ("0" * 64, 0)}))

    with pytest.raises(CheckpointError, match="expected"):
        plant(tmp_path, manifest).load("step-000000000001")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "expected format 'impala-rl checkpoint'"),
        ({"version": 2}, "format version 2: expected 1"),
        ({"step": "1"}, "expected a whole step"),
        ({"state": []}, "expected a whole step"),
        ({"files": []}, "expected step, state and files"),
        ({"files": {"a.safetensors": {"sha256": "", "bytes": -1}}}, "expected safetensors files"),
        ({"files": {"a.safetensors": {"sha256": "", "bytes": "9"}}}, "expected safetensors files"),
    ],
)
def test_load_of_foreign_manifest_says_what_was_expected(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    content = json.loads(pack_manifest(Manifest(step=1, state={}, files={})))
    del content["manifest_sha256"]
    content |= changes
    content["manifest_sha256"] = checkpoint_manifest._compute_digest(content)

    with pytest.raises(CheckpointError, match=message):
        plant(tmp_path, json.dumps(content).encode()).load("step-000000000001")


def test_names_are_in_order_and_leave_out_what_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "missing")
    assert store.names() == []
    store = CheckpointStore(tmp_path)
    wanted = ["step-000000000009", "step-000000000010", "step-1000000000000"]
    for name in [*reversed(wanted), "lost+found", "step-9", ".tmp-1"]:
        (tmp_path / name).mkdir()
    (tmp_path / "step-000000000011").write_text("a file")

    assert store.names() == wanted


def test_named_checkpoint_is_kept_and_not_resumed_from(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(5, {"weights": {}}, {})
    store.save(9, {"weights": {}}, {}, "good")
    store.save(7, {"weights": {}}, {})

    assert store.names() == ["step-000000000007"]
    assert store.all_names() == ["step-000000000007", "good"]
    assert store.load_newest().step == 7
    assert store.describe("good").is_kept
    with pytest.raises(AlreadyExistsError):
        store.save(10, {"weights": {}}, {}, "good")


def test_set_aside_takes_only_later_ones_out_of_the_way(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=9)
    for step in (1, 2, 3):
        store.save(step, {"weights": {}}, {})

    for _ in range(2):
        assert len(store.set_aside_after(2)) == 1
        assert store.load_newest().step == 2
        store.save(3, {"weights": {}}, {})

    assert store.load("rolled-back-step-000000000003").step == 3
    assert store.load("rolled-back-step-000000000003.2").step == 3


@pytest.mark.parametrize(
    "name", ["..", "a/b", "/x", ".x", "a\0", "a\n", "x" * 65, "step-1", "rolled-back-x", "é", " "]
)
def test_name_that_no_checkpoint_may_have_writes_nothing(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")

    with pytest.raises(InvalidRequestError) as caught:
        store.save(1, {"weights": {}}, {}, name)

    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []
