"""Anonymous shared memory that two processes map.

The supervisor creates blocks before it starts the learner and the front end
and passes both the descriptor; the learner gives a block its size once the
specifications are known. A kill leaves no file behind, and /dev/shm (64 MB in a container by
default) is not used.
"""

from __future__ import annotations

import mmap
import os

from impala_common.process.starting import open_memory_file


class SharedBlock:
    """A memory file: one owner of a descriptor, and at most one mapping of it."""

    def __init__(self, fd: int) -> None:
        """Takes over descriptor `fd`."""
        self.fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls, name: str) -> SharedBlock:
        """Returns a new empty block; `name` is for people who look at /proc."""
        with open_memory_file(name) as file:
            return cls(os.dup(file.fileno()))

    def resize(self, num_bytes: int) -> None:
        """Gives the block its size. Called once, by the learner, before either process maps it."""
        os.ftruncate(self.fd, num_bytes)

    def map(self) -> memoryview:
        """Returns a view of the whole block, valid as long as it is referred to."""
        if self._map is None:
            self._map = mmap.mmap(self.fd, os.fstat(self.fd).st_size)
        return memoryview(self._map)

    def close(self) -> None:
        """Closes the descriptor; the memory is freed with its last mapping."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._map = None
