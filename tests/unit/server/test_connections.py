"""The number of connections fits the open files that the process may have."""

from __future__ import annotations

import logging
import resource

import pytest

from impala_server.front_end.listener.connections import max_connections, raise_descriptor_limit


@pytest.mark.parametrize(
    ("max_actors", "max_descriptors", "expected"),
    [(256, 0, 1088), (256, 20_000, 1088), (256, 1024, 896), (4096, 1024, 896), (8, 64, 16)],
)
def test_connections_are_four_an_actor_as_far_as_files_reach(
    max_actors: int, max_descriptors: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert max_connections(max_actors, max_descriptors) == expected

    assert ("raise the limit" in caplog.text) == (expected < max_actors)


def test_limit_of_open_files_is_raised_as_far_as_it_may() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= soft
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
