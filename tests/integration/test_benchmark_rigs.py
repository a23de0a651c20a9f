"""The rigs that sections of the benchmarks stand on: each serves, and nothing is refused.

Sections are measured by `make bench`, which takes long; here each rig carries a little traffic, so
that a change of the product that a rig does not follow is seen at once.
"""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.rigs.play_clients import play
from benchmarks.rigs.play_servers import PlayServer
from benchmarks.rigs.unroll_source import make_vectors, record_atari
from benchmarks.sections.thin import open_clients
from benchmarks.sections.wire_ingest import measure_ingest
from benchmarks.sections.wire_learner import measure_beside_ingest
from benchmarks.sections.wire_weights import measure_weights

pytestmark = pytest.mark.timeout(300)


def test_synthetic_unrolls_are_taken_by_a_front_end_alone() -> None:
    row = measure_ingest(make_vectors(5, 2, 2), 2, num_windows=1, window_s=0.5, batch_size=4)

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
    assert measure_weights(2, 1_000_000, 1)["gb_per_s"]["median"] > 0


@pytest.mark.extended
def test_clients_of_one_slot_play_with_a_policy_server_alone() -> None:
    async def measure() -> float:
        with PlayServer("policy") as server:
            clients = await open_clients(server.address, 3)
            load = await play(clients, 0.3)
            await asyncio.gather(*(client.close() for client in clients))
        return load.steps_per_s

    assert asyncio.run(measure()) > 0
