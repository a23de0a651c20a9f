"""What a process is started with: files in memory, and an error where it cannot be started."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from impala_common.errors import ImpalaError


def open_memory_file(name: str) -> BinaryIO:
    """Returns an empty file without a place on a disk, which may be full or read-only.

    Args:
      name: for people who look at /proc.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC), "w+b")
    with tempfile.TemporaryFile(prefix=name) as file:
        return os.fdopen(os.dup(file.fileno()), "w+b")


def open_settings(text: str) -> BinaryIO:
    """Returns a memory file with `text`, at its beginning: the stdin of a process."""
    file = open_memory_file("impala-settings")
    file.write(text.encode())
    file.seek(0)
    return file


@contextlib.contextmanager
def starting(name: str) -> Iterator[None]:
    """Returns a context for the start of the process `name` and the opening of its log.

    Raises:
      ImpalaError: in place of an OSError, such as of a full disk or too many processes.
    """
    try:
        yield
    except OSError as error:
        raise ImpalaError(f"{name} cannot be started: {error}") from error
