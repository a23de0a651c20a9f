"""Small checkpoints, and each way to damage one of their files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from impala_common.run import checkpoints
from impala_common.run.checkpoint_manifest import MANIFEST
from impala_common.run.checkpoints import CheckpointStore

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
