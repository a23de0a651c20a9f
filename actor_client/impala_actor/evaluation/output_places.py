"""Checks of what impala-eval reads and writes, before episodes are played.

Imports neither torch nor matplotlib: what cannot work is said in a second.
"""

from __future__ import annotations

import os
from pathlib import Path

from impala_common.errors import CheckpointError, ConfigError
from impala_common.process.logs import printable
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory, reading

EXPORT_RULE = "a new or empty folder, or one with an earlier export"
"""What the folder of an export must be."""
_PICTURES = ("png", "svg", "pdf", "jpg", "jpeg", "webp", "eps", "ps", "tif", "tiff", "gif", "avif")


def require_runs(paths: tuple[Path, ...], checkpoint: str | None) -> None:
    """Raises an error unless each path is a run's folder that has the checkpoint.

    Raises:
      ConfigError: a folder is none of a run.
      CheckpointError: there is no such checkpoint; the text names those there are.
    """
    for path in paths:
        run = RunDirectory(path)
        with reading("RUN", path):
            is_run = run.config_path.is_file()
        if not is_run:
            raise ConfigError("RUN", str(path), "a run's folder", f"there is no {run.config_path}")
        store = CheckpointStore(run.checkpoints_path)
        if checkpoint is not None and checkpoint not in store.all_names():
            there = ", ".join(store.all_names()) or "none"
            raise CheckpointError(
                f"no checkpoint '{printable(checkpoint, 80)}' in {store.path}; there are: {there}"
            )


def require_picture(path: Path) -> None:
    """Raises ConfigError unless a picture can be written to `path`."""
    if path.suffix[1:].lower() not in _PICTURES:
        rule = "a file with the ending .png, .svg or .pdf"
        raise ConfigError("--plot", str(path), rule, f"{path.suffix or 'none'} is no such ending")
    rule = "a picture file"
    with reading("--plot", path, rule):
        if path.is_dir():
            raise ConfigError("--plot", str(path), rule, "it is a folder")
        if not path.parent.is_dir():
            raise ConfigError("--plot", str(path), rule, f"there is no {path.parent}")
        there = path if path.exists() else path.parent
    _require_writable("--plot", path, there, rule)


def require_folder(option: str, path: Path, rule: str = "a folder to write to") -> None:
    """Raises ConfigError, which states `rule`, unless `path` can be written to, or can be made."""
    with reading(option, path, rule):
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not there.is_dir():
            seen = "it" if there == path else str(there)
            raise ConfigError(option, str(path), rule, f"{seen} is a file")
    _require_writable(option, path, there, rule)


def _require_writable(option: str, path: Path, there: Path, rule: str) -> None:
    if not os.access(there, os.W_OK) or str(there.resolve()).startswith("/proc"):
        raise ConfigError(option, str(path), rule, f"{there} cannot be written to")
