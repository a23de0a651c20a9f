"""as_another_user: code of a test that reads files with the rights of an ordinary user."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Takes root's rights away while the context lasts; any other user has none to lose."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Returns a new folder that all users may look into; pytest's are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="impala-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path, names, _ in os.walk(folder):  # from the top: opens what it goes into next
            for name in names:
                if not (inner := Path(path, name)).is_symlink():
                    inner.chmod(0o755)
        shutil.rmtree(folder)
