"""Makes the C allocator keep large freed buffers instead of returning them.

Called at the start of processes that allocate and free megabytes with every message or update: the
front end, actors, policy servers and the learner. Does nothing without glibc.
"""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_large_buffers() -> None:
    """Stops glibc from returning each freed block to the kernel, which costs page faults later."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 256 << 20)
        libc.mallopt(_TOP_PAD, 8 << 20)
