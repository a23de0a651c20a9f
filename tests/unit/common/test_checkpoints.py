"""Checkpoints: complete or absent, restored bit for bit, each under its own name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from small_checkpoints import assert_is, save

from impala_common.errors import (
    AlreadyExistsError,
    CheckpointError,
    CheckpointWriteError,
    InvalidRequestError,
)
from impala_common.process import failpoints
from impala_common.run.checkpoints import CheckpointStore


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


def test_set_aside_that_the_disk_refuses_is_an_error_of_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: an OSError, which the rollback that asked for it did not know."""
    store = CheckpointStore(tmp_path, keep=9)
    for step in (1, 2):
        store.save(step, {"weights": {}}, {})

    def refuse(*unused: object) -> NoReturn:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(CheckpointWriteError, match=r"000002 cannot be set aside: .*Read-only"):
        store.set_aside_after(1)


@pytest.mark.parametrize(
    "name", ["..", "a/b", "/x", ".x", "a\0", "a\n", "x" * 65, "step-1", "rolled-back-x", "é", " "]
)
def test_name_that_no_checkpoint_may_have_writes_nothing(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")

    with pytest.raises(InvalidRequestError) as caught:
        store.save(1, {"weights": {}}, {}, name)

    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []
