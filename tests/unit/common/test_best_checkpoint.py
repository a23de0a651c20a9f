"""The best checkpoint: a crash during its replacement leaves the old or the new one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from impala_common.errors import CheckpointError, InvalidRequestError
from impala_common.run.best_checkpoint import BestCheckpoint
from impala_common.run.checkpoints import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=1)


def candidate(tmp_path: Path, step: int) -> Path:
    weights = {"weights": {"w": np.full(3, step, np.float32)}}
    return CheckpointStore(tmp_path / "candidates").save(step, weights, {"a": step}, f"c-{step}")


def test_adopt_replaces_the_best_with_its_verdict(tmp_path: Path, store: CheckpointStore) -> None:
    best = BestCheckpoint(store)
    assert best.describe() is None

    for step in (1, 2):
        best.adopt(candidate(tmp_path, step), {"mean": float(step)})

    loaded = store.load("best")
    assert (loaded.step, loaded.state) == (2, {"a": 2, "evaluation": {"mean": 2.0}})
    assert sorted(path.name for path in store.path.iterdir()) == ["best"]
    assert list((tmp_path / "candidates").iterdir()) == []


def test_best_outlives_retention_and_setting_aside(tmp_path: Path, store: CheckpointStore) -> None:
    BestCheckpoint(store).adopt(candidate(tmp_path, 5), {})
    for step in (6, 7, 8):
        store.save(step, {"weights": {}}, {})

    store.set_aside_after(0)

    assert store.load("best").step == 5
    with pytest.raises(InvalidRequestError, match="not 'best'"):
        store.save(9, {"weights": {}}, {}, "best")


@pytest.mark.parametrize("renames_before_crash", [1, 2])
def test_crash_while_replacing_leaves_one_best(
    tmp_path: Path,
    store: CheckpointStore,
    monkeypatch: pytest.MonkeyPatch,
    renames_before_crash: int,
) -> None:
    """Planted: without `recover` the first case leaves none."""
    best = BestCheckpoint(store)
    best.adopt(candidate(tmp_path, 1), {})
    folder, rename, calls = candidate(tmp_path, 2), os.rename, []

    def crash(source: Path, target: Path) -> None:
        if len(calls) == renames_before_crash:
            raise KeyboardInterrupt  # nothing in between looks after it
        calls.append(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", crash)
    monkeypatch.setattr(BestCheckpoint, "recover", lambda unused: None)
    with contextlib.suppress(KeyboardInterrupt):
        best.adopt(folder, {})
    monkeypatch.undo()

    again = BestCheckpoint(store)
    again.recover()

    assert store.load("best").step == renames_before_crash
    assert sorted(path.name for path in store.path.iterdir()) == ["best"]


def test_damaged_candidate_does_not_become_the_best(tmp_path: Path, store: CheckpointStore) -> None:
    best = BestCheckpoint(store)
    best.adopt(candidate(tmp_path, 1), {})
    folder = candidate(tmp_path, 2)
    (folder / "manifest.json").write_text("{}")

    with pytest.raises(CheckpointError):
        best.adopt(folder, {})

    assert store.load("best").step == 1
