"""The arithmetic of exchanges between GPUs, against a ring that is walked step by step."""

from __future__ import annotations

import pytest
from benchmarks.studies.exchange_arithmetic import Link, compute_exchange_s, count_gradient_bytes


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
def test_exchange_takes_as_long_as_the_steps_of_a_ring(num_ranks: int) -> None:
    """Seen to fail with N for N - 1."""
    link = Link("a link", bytes_per_s=1000.0, latency_s=0.5)
    num_bytes, seconds = 800, 0.0
    for _phase in ("reduce and scatter", "gather"):
        for _step in range(num_ranks - 1):
            seconds += num_bytes / num_ranks / link.bytes_per_s + link.latency_s

    assert compute_exchange_s(num_bytes, num_ranks, link) == pytest.approx(seconds)


def test_bytes_are_those_of_every_parameter_in_float32() -> None:
    hidden = (4 * 64 + 64) + (64 * 64 + 64)
    heads = (64 * 2 + 2) + (64 + 1)
    assert count_gradient_bytes("mlp") == 4 * (2 * hidden + heads)
