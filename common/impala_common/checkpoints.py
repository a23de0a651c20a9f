"""Checkpoints on disk: written so that one is always whole, read so that damage is noticed.

A checkpoint is a folder `step-000000012345`: one safetensors file per group of
tensors and `manifest.json` with everything else and a digest of each file. The
learner's checkpoint thread writes (one writer, which holds the run's lock);
other processes may read meanwhile. Nothing here is or runs code: no pickle.
Knows neither torch nor gRPC.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from impala_common.checkpoint_manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    TENSORS_SUFFIX,
    Manifest,
    pack_manifest,
    read_bytes,
    read_tensors,
    unpack_manifest,
    validate_name,
)
from impala_common.errors import CheckpointError
from impala_common.run_directory import TEMPORARY_PREFIX, sync_directory, write_bytes_synced

_log = logging.getLogger(__name__)

_STEP_NAME = re.compile(r"step-(\d{12,18})(?:-(\d{1,9}))?")

Tensors = Mapping[str, Mapping[str, np.ndarray]]
"""Tensors by group (one file each: weights, optimizer...) and name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint as read: every byte of it agreed with its manifest.

    Attributes:
      name: its folder's name.
      step: agent steps trained when it was written.
      tensors: by group, then by name; the arrays belong to the caller.
      state: the JSON value it was saved with.
    """

    name: str
    step: int
    tensors: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]  # Any: JSON


class CheckpointStore:
    """The checkpoints of one run; one process writes, any number read."""

    def __init__(self, path: str | os.PathLike[str], keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep} but must be at least 1")
        self.path = Path(path)
        self._keep = keep

    def names(self) -> list[str]:
        """Returns the names of all checkpoints, oldest first, damaged ones among them."""
        try:
            entries = [entry.name for entry in os.scandir(self.path) if entry.is_dir()]
        except FileNotFoundError:
            return []
        return sorted((name for name in entries if _STEP_NAME.fullmatch(name)), key=_order)

    def save(self, step: int, tensors: Tensors, state: dict[str, Any]) -> Path:  # Any: JSON
        """Writes a checkpoint and returns when it is durable.

        Older ones beyond `keep` are removed afterwards. Where a checkpoint of
        this step exists already it stays, and the new one's name ends in -2.

        Args:
          step: agent steps trained, at least 0.
          tensors: by group and name; groups may be empty.
          state: whatever else is needed to go on; finite JSON.

        Returns:
          The checkpoint's folder.

        Raises:
          CheckpointError: it could not be written (disk full, say). Earlier
            ones are untouched, and what was written of it is removed.
        """
        for group in tensors:
            validate_name(group)
        temporary = self.path / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove_stale()
            temporary.mkdir()
            manifest = self._write_files(temporary, step, tensors, state)
            final = self.path / self._free_name(step)
            os.rename(temporary, final)
            sync_directory(self.path)
            if read_bytes(final / MANIFEST, MAX_MANIFEST_BYTES) != manifest:
                raise CheckpointError(f"{final / MANIFEST} reads back differently than written")
        except OSError as error:
            raise CheckpointError(
                f"checkpoint of step {step} could not be written to {self.path}: {error}"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._remove_old(newest=final.name)
        return final

    def load_newest(self) -> Checkpoint:
        """Returns the newest undamaged checkpoint; each damaged one is logged and passed over.

        Raises:
          CheckpointError: there is none.
        """
        failures: dict[str, str] = {}
        while True:
            # Listed anew each time: a writer may have removed what was listed before.
            names = [name for name in self.names() if name not in failures]
            if not names:
                break
            try:
                return self.load(names[-1])
            except CheckpointError as error:
                if not (self.path / names[-1]).exists():
                    continue  # removed by the writer, which has a newer one
                failures[names[-1]] = str(error)
                _log.warning("checkpoint passed over: %s", error)
        if not failures:
            raise CheckpointError(f"no checkpoint in {self.path}")
        raise CheckpointError(
            f"no undamaged checkpoint in {self.path}: " + "; ".join(failures.values())
        )

    def load(self, name: str) -> Checkpoint:
        """Returns checkpoint `name`, every byte verified.

        Raises:
          CheckpointError: it does not exist, is damaged, or is something else.
        """
        validate_name(name)
        folder = self.path / name
        try:
            manifest = unpack_manifest(
                folder / MANIFEST, read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES)
            )
            tensors = {
                file.removesuffix(TENSORS_SUFFIX): read_tensors(folder / file, *expected)
                for file, expected in manifest.files.items()
            }
        except OSError as error:
            raise CheckpointError(f"{folder} cannot be read: {error}") from error
        return Checkpoint(name, manifest.step, tensors, manifest.state)

    def _write_files(
        self, folder: Path, step: int, tensors: Tensors, state: dict[str, Any]
    ) -> bytes:
        """Writes all files of a checkpoint, synced, and returns the manifest's bytes."""
        files: dict[str, tuple[str, int]] = {}
        for group, arrays in tensors.items():
            # order="C": the format has no strides.
            data = safetensors.numpy.save(
                {name: np.asarray(array, order="C") for name, array in arrays.items()}
            )
            file = group + TENSORS_SUFFIX
            write_bytes_synced(folder / file, data)
            files[file] = (hashlib.sha256(data).hexdigest(), len(data))
        manifest = pack_manifest(Manifest(step=step, state=state, files=files))
        write_bytes_synced(folder / MANIFEST, manifest)
        sync_directory(folder)
        return manifest

    def _free_name(self, step: int) -> str:
        """Returns the name for a new checkpoint of `step`, newer than any of that step."""
        name = f"step-{step:012d}"
        taken = [_order(other)[1] for other in self.names() if _order(other)[0] == step]
        return f"{name}-{max(taken) + 1}" if taken else name

    def _remove_old(self, newest: str) -> None:
        """Removes what is older than the `keep` newest good ones at or below `newest`.

        What is newer than `newest` stays: it may be damaged, and may be all
        that someone who went back to an older checkpoint has of the other try.
        """
        names = [name for name in self.names() if _order(name) <= _order(newest)]
        good = [name for name in names if name == newest or self._is_complete(name)]
        if len(good) <= self._keep:
            return
        for name in names[: names.index(good[-self._keep])]:
            removed = self.path / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}"
            try:
                # Renamed first: half a checkpoint never stands under a checkpoint's name.
                os.rename(self.path / name, removed)
                shutil.rmtree(removed)
            except OSError as error:
                _log.warning("old checkpoint %s could not be removed: %s", name, error)

    def _is_complete(self, name: str) -> bool:
        """Returns whether the manifest is good and all files have their sizes."""
        folder = self.path / name
        try:
            manifest = unpack_manifest(
                folder / MANIFEST, read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES)
            )
            sizes = {file: (folder / file).lstat().st_size for file in manifest.files}
        except (OSError, CheckpointError):
            return False
        return all(sizes[file] == num_bytes for file, (_, num_bytes) in manifest.files.items())

    def _remove_stale(self) -> None:
        """Removes what a killed writer left; only the writer calls this."""
        for entry in self.path.iterdir():
            if entry.name.startswith(TEMPORARY_PREFIX):
                shutil.rmtree(entry, ignore_errors=True)


def _order(name: str) -> tuple[int, int]:
    """Returns the sort key of a checkpoint's name: step, then number within the step."""
    match = _STEP_NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 1)
