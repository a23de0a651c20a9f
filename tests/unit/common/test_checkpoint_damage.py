"""Damaged and foreign checkpoints: noticed, named, and never loaded."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import (
    DAMAGES,
    FILES,
    assert_is,
    damage_remove,
    damage_truncate,
    damage_zeros,
    save,
)

from impala_common.errors import CheckpointError, CheckpointUnreadableError
from impala_common.run import checkpoint_manifest
from impala_common.run.checkpoint_manifest import MANIFEST, Manifest, pack_manifest
from impala_common.run.checkpoints import CheckpointStore


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
    """The fault:out the sha256 of files, and without the manifest's own digest."""
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


@pytest.mark.parametrize("num_bytes", [10**18, 2**63, 10**30, checkpoint_manifest.MAX_FILE_BYTES])
def test_load_of_file_said_to_be_huge_is_refused_without_its_memory(
    tmp_path: Path, num_bytes: int
) -> None:
    """Seen to end with MemoryError and OverflowError."""
    store = CheckpointStore(tmp_path)
    folder = tmp_path / save(store, 1)
    path = folder / MANIFEST
    content = json.loads(path.read_text())
    content["files"]["weights.safetensors"]["bytes"] = num_bytes
    del content["manifest_sha256"]
    content["manifest_sha256"] = checkpoint_manifest._compute_digest(content)
    path.write_text(json.dumps(content))

    with pytest.raises(CheckpointError, match=r"weights.safetensors .*bytes"):
        store.load(folder.name)
    with pytest.raises(CheckpointError, match=r"weights.safetensors .*bytes"):
        checkpoint_manifest.read_group(folder, "weights")


@pytest.mark.parametrize(("name", "limit"), [("MAX_MANIFEST_BYTES", 300), ("MAX_FILE_BYTES", 64)])
def test_save_beyond_a_limit_of_reading_is_refused_and_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    """Seen to be written: `load` of the same release refused it."""
    store = CheckpointStore(tmp_path)
    before = save(store, 1)
    with monkeypatch.context() as small:
        small.setattr(checkpoint_manifest, name, limit)
        with pytest.raises(CheckpointUnreadableError, match=f"expected at most {limit}"):
            save(store, 2)

    assert store.all_names() == [before]
    assert_is(store.load_newest(), 1)


@pytest.mark.parametrize("damage", [damage_truncate, damage_zeros, damage_remove])
@pytest.mark.parametrize("file", FILES)
def test_save_that_the_disk_damages_is_noticed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], file: str
) -> None:
    """Seen to fail for files of tensors: only the manifest was read back."""
    store = CheckpointStore(tmp_path)
    before = save(store, 1)

    def rename(source: Path, target: Path) -> None:
        os.replace(source, target)
        if target.name.startswith("step-"):
            damage(target / file)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(CheckpointError):
        save(store, 2)

    assert store.names() == [before]
