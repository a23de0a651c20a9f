"""Rollout storage that is larger than the memory is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from impala_common.errors import ConfigError
from impala_server.storage.memory_limit import find_memory_bytes, require_fit


def test_memory_is_that_of_the_container_where_it_is_less(tmp_path: Path) -> None:
    machine = find_memory_bytes(tmp_path / "none")
    assert machine > 2**28

    for text, expected in (("max\n", machine), ("1000\n", 1000), (f"{2**60}\n", machine)):
        (tmp_path / "memory.max").write_text(text)
        assert find_memory_bytes(tmp_path) == expected


def test_storage_beyond_the_memory_is_refused_with_both_sizes() -> None:
    require_fit(2**20, 96)

    with pytest.raises(ConfigError, match=r"num_storages is 96 .* GiB: there are .* GiB"):
        require_fit(2**50, 96)
