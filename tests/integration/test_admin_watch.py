"""`impala-admin watch` as a process of its own: readers that leave, terminals of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from running_server import RunningServer

pytestmark = pytest.mark.timeout(120)

WATCH = [sys.executable, "-m", "impala_actor.admin_cli", "watch", "--interval-s", "0.1"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("watch") / "run") as running:
        yield running


def watch(server: RunningServer, *options: str) -> list[str]:
    """Returns the command that watches `server`."""
    return [*WATCH, "--run", str(server.run.path), *options]


def test_watch_ends_without_an_error_when_its_reader_has_seen_enough(
    server: RunningServer,
) -> None:
    """`impala-admin watch --json | head -3`. Before: a traceback of BrokenPipeError."""
    process = subprocess.Popen(
        watch(server, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    process.stdout.close()
    process.stdout = None  # nothing more is read
    _, complaints = process.communicate(timeout=60)

    assert {line["state"] for line in lines} == {"STARTING"}
    assert (process.returncode, complaints) == (0, "")


def test_watch_into_a_file_is_lines_even_if_colours_are_forced(server: RunningServer) -> None:
    """Before: every picture of the live display went into the file."""
    done = subprocess.run(
        watch(server, "--count", "2"),
        capture_output=True,
        text=True,
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"},
        timeout=60,
        check=True,
    )

    assert len(done.stdout.splitlines()) == 2
    assert "\x1b" not in done.stdout
