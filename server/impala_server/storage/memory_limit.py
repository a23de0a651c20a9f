"""How much memory this machine or container has, and what cannot fit into it.

The kernel promises a shared block of any size and ends the process that fills it, so rollout
storage is compared with the memory before it gets its size.
"""

from __future__ import annotations

import os
from pathlib import Path

from impala_common.errors import ConfigError


def find_memory_bytes(cgroup_path: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the memory of the machine, or the limit of the container if that is smaller."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = (cgroup_path / "memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdecimal() else machine


def require_fit(num_bytes: int, num_storages: int) -> None:
    """Raises ConfigError if rollout storage of `num_bytes` is larger than the memory."""
    memory = find_memory_bytes()
    if num_bytes > memory:
        raise ConfigError(
            "num_storages",
            num_storages,
            f"fewer, or of shorter unrolls: rollout storage would take {num_bytes / 2**30:,.1f} "
            "GiB",
            f"there are {memory / 2**30:,.1f} GiB of memory",
        )
