"""Large buffers stay with the process that frees them."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS = """
import resource, sys
from impala_common.process.allocator import keep_large_buffers
if sys.argv[1] == "keep":
    keep_large_buffers()
def play():
    buffers = [b"x" * (6 << 20) for _ in range(4)]
play()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    play()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_page_faults(what: str) -> int:
    command = [sys.executable, "-c", ROUNDS, what]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the allocator of glibc")
def test_buffers_that_come_and_go_are_not_faulted_in_again() -> None:
    """24 MiB twenty times over are 122,880 pages. Seen to fail with mallopt left out."""
    assert count_page_faults("keep") < 2000
    assert count_page_faults("return") > 50_000  # what it is there for
