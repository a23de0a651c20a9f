"""hold_folder: a lock on a folder that a reader reads, so that a writer does not remove it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def hold_folder(folder: Path, kind: int) -> Iterator[bool]:
    """Returns a context with a flock on a folder; False if another process holds one.

    Never waits. The kernel releases the lock when the process ends. On a file system without locks
    it always succeeds: a reader whose checkpoint is removed then takes the next newest.
    `kind` is LOCK_SH or LOCK_EX of fcntl.
    """
    descriptor = -1
    is_held = True
    try:
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                is_held = False
        yield is_held
    finally:
        if descriptor >= 0:
            os.close(descriptor)
