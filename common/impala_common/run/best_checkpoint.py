"""BestCheckpoint: the checkpoint called `best` of a run, replaced so that there is always one.

It did best of all that were judged during training, and its state says how well. Written by the
learner only; read like any other checkpoint. A better one takes
its place; an administrator can set it aside. Knows neither
torch nor gRPC.
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
from impala_common.run.run_directory import sync_directory, write_bytes_atomic

_CLEARED = "best-cleared-"

VERDICT = "evaluation"
"""Key of a best checkpoint's state under which its evaluation stands."""


class BestCheckpoint:
    """The best checkpoint of one store."""

    def __init__(self, store: CheckpointStore) -> None:
        """Looks after the one in `store`."""
        self._store = store
        self._path = store.path / BEST
        self._replaced_path = store.path / f"{BEST}.replaced"

    def describe(self) -> CheckpointSummary | None:
        """Returns what is known of it without reading its tensors; None where there is none.

        Raises:
          CheckpointError: it is damaged.
        """
        return self._store.describe(BEST) if self._path.exists() else None

    def adopt(self, folder: Path, verdict: dict[str, Any]) -> None:  # Any: JSON
        """Makes the checkpoint in `folder` the best. Whatever happens on the way, one stays.

        Args:
          folder: on the same file system; gone afterwards.
          verdict: its evaluation, added to its state.

        Raises:
          CheckpointError: it is damaged, or the disk refuses; the old best stays.
        """
        try:
            data = read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES)
            manifest = unpack_manifest(folder / MANIFEST, data)
            judged = dataclasses.replace(manifest, state=manifest.state | {VERDICT: verdict})
            write_bytes_atomic(folder / MANIFEST, pack_manifest(judged))
            self._store.path.mkdir(parents=True, exist_ok=True)
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
        """Renames the best, so that the next one takes its place; returns its new name.

        Raises:
          NotFoundError: there is none.
          CheckpointError: the disk refuses.
        """
        try:
            self.recover()
            names = set(os.listdir(self._store.path)) if self._path.exists() else set()
            if not names:
                raise NotFoundError("there is no best checkpoint")
            free = (f"{_CLEARED}{number}" for number in itertools.count(1))
            name = next(name for name in free if name not in names)
            os.rename(self._path, self._store.path / name)
            sync_directory(self._store.path)
        except OSError as error:
            raise CheckpointError(f"{self._path} could not be set aside: {error}") from error
        return name

    def recover(self) -> None:
        """Ends what a crash within `adopt` left half done."""
        if not self._replaced_path.exists():
            return
        if self._path.exists():
            shutil.rmtree(self._replaced_path, ignore_errors=True)
        else:
            os.rename(self._replaced_path, self._path)
