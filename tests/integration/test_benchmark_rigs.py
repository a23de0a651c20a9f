"""The rigs that sections of the benchmarks stand on: each serves, and nothing is refused.

Sections are measured by `make bench`, which takes long; here each rig carries a little traffic, so
that a change of the product that a rig does not follow is seen at once.
"""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.rigs.unroll_source import make_vectors, record_atari
from benchmarks.sections.thin import measure_idle
from benchmarks.sections.wire_ingest import measure_ingest
from benchmarks.sections.wire_learner import measure_beside_ingest
from benchmarks.sections.wire_weights import measure_weights

pytestmark = pytest.mark.timeout(300)


def test_synthetic_unrolls_are_taken_by_a_front_end_alone() -> None:
    row = measure_ingest(make_vectors(5, 2, 2), 2, num_windows=1, window_s=0.5, batch_size=4)

    assert row["streams"] == 2
    assert row["unrolls_per_s"]["median"] > 0


@pytest.mark.extended
def test_recorded_unrolls_are_taken_beside_a_learner_alone() -> None:
    pytest.importorskip("ale_py")
    source = record_atari("ALE/Pong-v5", 5, 2, 2)

    row = measure_beside_ingest(source, 4, 1, num_windows=1, window_s=0.5)

    assert row["unrolls_per_s"] > 0
    assert row["updates"]["busy"] > 0


@pytest.mark.extended
def test_weights_are_fetched_from_a_front_end_alone() -> None:
    assert measure_weights(2, 1_000_000, 1)["clients"] == 2


@pytest.mark.extended
def test_clients_of_one_slot_play_with_a_policy_server_alone() -> None:
    assert asyncio.run(measure_idle(5))["num_clients"] == 5
