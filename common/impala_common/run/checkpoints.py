"""CheckpointStore: writes checkpoints atomically and verifies them on reading.

A checkpoint is a folder `step-000000012345`: one safetensors file per group of
tensors and `manifest.json` with everything else and a digest of each file. The
learner's checkpoint thread writes (one writer, which holds the run's lock);
other processes may read meanwhile. No file is or contains code: no pickle.
Knows neither torch nor gRPC.
"""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from impala_common.errors import (
    AlreadyExistsError,
    CapacityError,
    CheckpointError,
    CheckpointUnreadableError,
    CheckpointWriteError,
    InvalidRequestError,
    NotFoundError,
)
from impala_common.process import failpoints
from impala_common.process.logs import printable
from impala_common.run.checkpoint_manifest import (
    BEST,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    TENSORS_SUFFIX,
    Manifest,
    is_name,
    pack_manifest,
    read_bytes,
    read_tensors,
    unpack_manifest,
    validate_name,
    validate_readable,
)
from impala_common.run.folder_lock import hold_folder
from impala_common.run.run_directory import TEMPORARY_PREFIX, make_folder, sync_directory
from impala_common.run.tensor_files import write_synced, write_tensors

_log = logging.getLogger(__name__)

_STEP_NAME = re.compile(r"step-(\d{12,18})(?:-(\d{1,9}))?")
_SET_ASIDE = "rolled-back-"
_MAX_NAMED = 256

Tensors = Mapping[str, Mapping[str, np.ndarray]]
"""Tensors by group (one file each: weights, optimizer...) and name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint as read, with every byte verified by its manifest.

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


@dataclasses.dataclass(frozen=True, slots=True)
class CheckpointSummary:
    """A checkpoint without its tensors.

    Attributes:
      name: its folder's name.
      step: agent steps trained when it was written.
      state: the JSON value it was saved with.
      num_bytes: of its files of tensors.
      saved_s: when it was written, in seconds since 1970.
      is_kept: whether it is never removed automatically.
    """

    name: str
    step: int
    state: dict[str, Any]  # Any: JSON
    num_bytes: int
    saved_s: float
    is_kept: bool


class CheckpointStore:
    """The checkpoints of one run; one process writes, any number read."""

    def __init__(self, path: str | os.PathLike[str], keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep} but must be at least 1")
        self.path = Path(path)
        self._keep = keep

    def names(self) -> list[str]:
        """Returns the names of all checkpoints, oldest first; damaged ones are among them."""
        entries = [entry.name for entry in self._entries() if entry.is_dir()]
        return sorted((name for name in entries if _STEP_NAME.fullmatch(name)), key=_order)

    def all_names(self) -> list[str]:
        """Returns `names` and, after them, checkpoints with a given name, sorted by name."""
        folders = [one.name for one in self._entries() if one.is_dir(follow_symlinks=False)]
        named = [name for name in folders if is_name(name) and not _STEP_NAME.fullmatch(name)]
        return [*self.names(), *sorted(named)]

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            return list(os.scandir(self.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}") from error

    def save(
        self,
        step: int,
        tensors: Tensors,
        state: dict[str, Any],  # Any: JSON
        name: str = "",
    ) -> Path:
        """Writes a checkpoint and returns when it is durable.

        Without a name, older ones beyond `keep` are removed afterwards, and where
        a checkpoint of this step exists already it stays, and the new one's name
        ends in -2. A checkpoint with a name is never removed, and never resumed
        from by itself.

        Args:
          step: agent steps trained, at least 0.
          tensors: by group and name; groups may be empty.
          state: everything else that a resume needs; finite JSON.
          name: its name; empty: "step-" and the step.

        Returns:
          The checkpoint's folder.

        Raises:
          InvalidRequestError, AlreadyExistsError, CapacityError: see `require_free`.
          CheckpointUnreadableError: nobody could read it again.
          CheckpointError: it could not be written (disk full, say). Earlier
            ones are untouched, and what was written of it is removed.
        """
        for group in tensors:
            validate_name(group)
        if name:
            self.require_free(name)
        temporary = self.path / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}"
        try:
            make_folder(self.path)
            self._remove_stale()
            temporary.mkdir()
            failpoints.hit("checkpoint.before_write")
            manifest = self._write_files(temporary, step, tensors, state)
            final = self.path / (name or self._free_name(step))
            failpoints.hit("checkpoint.before_rename")
            os.rename(temporary, final)
            failpoints.hit("checkpoint.after_rename")
            sync_directory(self.path)
            try:
                validate_readable(final, manifest)
            except CheckpointUnreadableError:
                self.remove(final.name)  # else it would count as the newest
                raise
        except OSError as error:
            raise CheckpointError(
                f"checkpoint of step {step} could not be written to {self.path}: {error}"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if not name:
            self._remove_old(newest=final.name)
        return final

    def require_free(self, name: str) -> None:
        """Returns if a checkpoint may be given this name.

        Raises:
          InvalidRequestError: not a valid name, or one that the learner itself gives.
          AlreadyExistsError: it is taken.
          CapacityError: there are too many with given names.
        """
        is_best = name.partition(".")[0] == BEST
        if not is_name(name) or is_best or name.startswith(("step-", _SET_ASIDE)):
            raise InvalidRequestError(
                f"checkpoint name '{printable(name, 80)}': expected 1 to 64 letters, digits, '.', "
                f"'_' or '-', the first a letter or digit, not '{BEST}' and not beginning with "
                f"'step-' or '{_SET_ASIDE}'"
            )
        if (self.path / name).exists():
            raise AlreadyExistsError(f"there is a checkpoint {name!r} already: choose another name")
        if len(self.all_names()) - len(self.names()) >= _MAX_NAMED:
            raise CapacityError(
                f"there are {_MAX_NAMED} named checkpoints in {self.path}: remove some folders"
            )

    def require_known(self, name: str) -> None:
        """Raises NotFoundError, with a list of existing ones, unless `name` is a checkpoint."""
        names = self.all_names()
        if name not in names:
            raise NotFoundError(
                f"no checkpoint '{printable(name, 80)}'; there are: {', '.join(names) or 'none'}"
            )

    def set_aside_after(self, step: int) -> list[str]:
        """Renames checkpoints of later steps, so that a resume ignores them; returns new names.

        Raises:
          CheckpointWriteError: the disk refuses; some may have been renamed.
        """
        renamed = []
        for name in self.names():
            if _order(name)[0] <= step:
                continue
            target, number = f"{_SET_ASIDE}{name}", 1
            while (self.path / target).exists():
                number += 1
                target = f"{_SET_ASIDE}{name}.{number}"
            try:
                os.rename(self.path / name, self.path / target)
            except OSError as error:
                raise CheckpointWriteError(f"{name} cannot be set aside: {error}") from error
            renamed.append(target)
        if renamed:
            sync_directory(self.path)
        return renamed

    def remove(self, name: str) -> None:
        """Removes a checkpoint; a missing one is ignored. An error of the disk is logged."""
        validate_name(name)
        removed = self.path / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}"
        try:
            # Rename first: a partial checkpoint never has a checkpoint's name.
            os.rename(self.path / name, removed)
            shutil.rmtree(removed)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("checkpoint %s could not be removed: %s", name, error)

    def describe(self, name: str) -> CheckpointSummary:
        """Returns the description of a checkpoint without reading its tensors.

        Raises:
          CheckpointError: its manifest is missing or damaged.
        """
        validate_name(name)
        path = self.path / name / MANIFEST
        try:
            manifest = unpack_manifest(path, read_bytes(path, MAX_MANIFEST_BYTES))
            saved_s = path.lstat().st_mtime
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        num_bytes = sum(num_bytes for _, num_bytes in manifest.files.values())
        is_kept = _STEP_NAME.fullmatch(name) is None
        return CheckpointSummary(name, manifest.step, manifest.state, num_bytes, saved_s, is_kept)

    def load_newest(self) -> Checkpoint:
        """Returns the newest undamaged checkpoint; each damaged one is logged and skipped.

        Raises:
          CheckpointError: there is none.
        """
        failures: dict[str, str] = {}
        while True:
            # List again each time: a writer may have removed listed checkpoints.
            names = [name for name in self.names() if name not in failures]
            if not names:
                break
            try:
                return self.load(names[-1])
            except CheckpointError as error:
                if not os.path.lexists(self.path / names[-1]):
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
        with hold_folder(folder, fcntl.LOCK_SH):  # the writer must not remove it meanwhile
            return self._load(name, folder)

    def _load(self, name: str, folder: Path) -> Checkpoint:
        if not os.path.isdir(folder):  # Path.is_dir() raises where a folder above is closed
            there = ", ".join(self.all_names()) or "none"
            raise CheckpointError(
                f"no checkpoint '{printable(name, 80)}' in {self.path}; there are: {there}"
            )
        try:
            manifest = unpack_manifest(
                folder / MANIFEST, read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES)
            )
            failpoints.hit("restore.mid_load")
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
            file = group + TENSORS_SUFFIX
            files[file] = write_tensors(folder / file, arrays)
        manifest = pack_manifest(Manifest(step=step, state=state, files=files))
        write_synced(folder / MANIFEST, [memoryview(manifest)], len(manifest))
        sync_directory(folder)
        return manifest

    def _free_name(self, step: int) -> str:
        """Returns the name for a new checkpoint of `step`, newer than any of that step."""
        name = f"step-{step:012d}"
        taken = [_order(other)[1] for other in self.names() if _order(other)[0] == step]
        return f"{name}-{max(taken) + 1}" if taken else name

    def _remove_old(self, newest: str) -> None:
        """Removes checkpoints older than the `keep` newest good ones at or below `newest`.

        Checkpoints newer than `newest` stay: they may be damaged, or the only result before a
        resume from an older checkpoint. A checkpoint that is being read stays until the next call.
        """
        names = [name for name in self.names() if _order(name) <= _order(newest)]
        good = [name for name in names if name == newest or self._is_complete(name)]
        if len(good) <= self._keep:
            return
        for name in names[: names.index(good[-self._keep])]:
            with hold_folder(self.path / name, fcntl.LOCK_EX) as is_mine:
                if is_mine:
                    self.remove(name)

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
        """Removes files of a killed writer; only the writer calls this."""
        for entry in self.path.iterdir():
            if entry.name.startswith(TEMPORARY_PREFIX):
                shutil.rmtree(entry, ignore_errors=True)


def _order(name: str) -> tuple[int, int]:
    """Returns the sort key of a checkpoint's name: step, then number within the step."""
    match = _STEP_NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 1)
