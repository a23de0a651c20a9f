"""Computes how many connections the front end accepts, from the descriptor limit.

The front end calls it once, at start. A connection beyond the number is closed before any of its
data is read; existing connections are kept.
"""

from __future__ import annotations

import contextlib
import logging
import resource

_LOG = logging.getLogger(__name__)
_PER_ACTOR = 4
"""An actor has one; a dead one counts until keepalive ends it; evaluators need some, too."""
_BESIDE_ACTORS = 64
_RESERVED_DESCRIPTORS = 128
"""For files, pipes, listeners and the libraries."""


def raise_descriptor_limit() -> int:
    """Raises this process's limit of open files as far as it may, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # hard may be "infinity" and the kernel not
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def max_connections(max_actors: int, max_descriptors: int) -> int:
    """Returns how many connections the data plane may have.

    Args:
      max_actors: actors that may take part at a time.
      max_descriptors: the process's limit of open files; at most 0: no limit.
    """
    wanted = _PER_ACTOR * max_actors + _BESIDE_ACTORS
    if max_descriptors <= 0:
        return wanted
    fitting = max(max_descriptors - _RESERVED_DESCRIPTORS, 16)
    if fitting < max_actors:
        _LOG.warning(
            "%d open files (ulimit -n) leave room for %d connections, but max_actors is %d: "
            "raise the limit",
            max_descriptors,
            fitting,
            max_actors,
        )
    return min(wanted, fitting)
