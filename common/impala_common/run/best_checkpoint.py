"""BestCheckpoint: the run's checkpoint `best`, replaced atomically.

It has the largest mean return of all evaluations during training, and its state holds the result.
Written by the learner only; read like any other checkpoint. Only a better one replaces it, unless
an administrator has set it aside. Knows neither torch nor gRPC.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

from impala_common.errors import CheckpointError, NotFoundError
from impala_common.run.checkpoint_manifest import (
    BEST,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    pack_manifest,
    read_bytes,
    unpack_manifest,
)
from impala_common.run.checkpoints import CheckpointStore, CheckpointSummary
from impala_common.run.run_directory import make_folder, sync_directory, write_bytes_atomic

EVALUATION = "evaluation"
"""Key of the evaluation in a best checkpoint's state."""
_CLEARED = "best-cleared-"


class BestCheckpoint:
    """The best checkpoint of one store."""

    def __init__(self, store: CheckpointStore) -> None:
        """Manages the best checkpoint in `store`."""
        self._store = store
        self._path = store.path / BEST
        self._replaced_path = store.path / f"{BEST}.replaced"

    def describe(self) -> CheckpointSummary | None:
        """Returns its description without reading its tensors; None if there is none.

        Raises:
          CheckpointError: it is damaged.
        """
        return self._store.describe(BEST) if self._path.exists() else None

    def adopt(self, folder: Path, evaluation: dict[str, Any]) -> None:  # Any: JSON
        """Makes the checkpoint in `folder` the best. After a crash the old or the new one is there.

        Args:
          folder: on the same file system; moved.
          evaluation: its evaluation, added to its state.

        Raises:
          CheckpointError: it is damaged, or cannot be moved; the old best stays.
        """
        try:
            data = read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES)
            manifest = unpack_manifest(folder / MANIFEST, data)
            judged = dataclasses.replace(manifest, state=manifest.state | {EVALUATION: evaluation})
            write_bytes_atomic(folder / MANIFEST, pack_manifest(judged))
            make_folder(self._store.path)
            self.recover()
            if self._path.exists():
                os.rename(self._path, self._replaced_path)
            try:
                os.rename(folder, self._path)
            finally:
                self.recover()
            sync_directory(self._store.path)
        except OSError as error:
            raise CheckpointError(f"{self._path} could not be replaced: {error}") from error

    def set_aside(self) -> str:
        """Renames the best checkpoint, so that the next candidate becomes the best.

        Returns:
          Its new name: best-cleared-1, or the first free number.

        Raises:
          NotFoundError: there is none.
          CheckpointError: it cannot be renamed.
        """
        try:
            self.recover()
            if not self._path.exists():
                raise NotFoundError("the run has no best checkpoint")
            used = set(os.listdir(self._store.path))
            name = next(n for i in itertools.count(1) if (n := f"{_CLEARED}{i}") not in used)
            os.rename(self._path, self._store.path / name)
            sync_directory(self._store.path)
        except OSError as error:
            raise CheckpointError(f"{self._path} could not be set aside: {error}") from error
        return name

    def recover(self) -> None:
        """Finishes an `adopt` that a crash interrupted."""
        if not self._replaced_path.exists():
            return
        if self._path.exists():
            shutil.rmtree(self._replaced_path, ignore_errors=True)
        else:
            os.rename(self._replaced_path, self._path)
