"""The sections about the wire and about growth: knees, pages from canned results, sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import growth, wire
from benchmarks.section import summarise
from benchmarks.targets import load_targets
from benchmarks.unroll_source import UnrollSource, make_pixels, make_vectors

TOLD = summarise([1.0, 2.0, 3.0])


def make_ingest_row(streams: int, rate: float) -> dict[str, Any]:
    names = ("unrolls_per_s", "server_ms_per_unroll", "client_ms_per_unroll", "ratio_to_raw")
    return {
        **dict.fromkeys(names, summarise([rate])),
        "streams": streams,
        "server_s_per_gb": 0.1,
        "client_s_per_gb": 0.1,
    }


def make_learner_row(**traffic: Any) -> dict[str, Any]:
    told = dict.fromkeys(("idle_updates_per_s", "ratio_wall", "ratio_cpu"), summarise([0.97]))
    return {**told, "p99_ratio_wall": 1.1, "p99_ratio_cpu": 1.0, **traffic}


WIRE_RESULT = {
    "env": "ALE/Pong-v5",
    "atari": [make_ingest_row(16, 3000.0), make_ingest_row(64, 2500.0)],
    "atari_bytes": {"uncompressed": 7467.0, "compressed": 102.0},
    "random": [make_ingest_row(4, 500.0)],
    "weights": [
        {
            "clients": 8,
            "weights_bytes": 40_000_000,
            **dict.fromkeys(("gb_per_s", "ratio_to_raw"), TOLD),
            "server_s_per_gb": 0.4,
            "client_s_per_gb": 0.6,
            "server_growth_mib": 2.0,
        }
    ],
    "learner": {
        "beside Pong unrolls": make_learner_row(streams=16, unrolls_per_s=900.0),
        "beside vectors": make_learner_row(streams=16, unrolls_per_s=9000.0),
        "beside clients that fetch": make_learner_row(clients=500, fetch_s=TOLD),
    },
}


def test_wire_figures_are_the_worst_of_each_kind_and_all_that_targets_name() -> None:
    """Seen failing with the best of each kind."""
    found = wire.figures(WIRE_RESULT)

    assert found["atari_unrolls_per_s"] == 2500.0
    assert found["atari_server_ms"] == 3000.0
    assert {t.figure for t in load_targets() if t.section == "wire"} <= set(found)


def test_wire_page_has_a_line_for_each_measurement() -> None:
    lines = wire.render(WIRE_RESULT).splitlines()

    assert "| ALE/Pong-v5 | 16 | 3,000 | 3000.00 | 0% | 3000.00 | 3000.00 | 0.10 | 0.10 |" in lines
    assert "| 8 | 40 | 2.00 | 2.00 | 100% | 0.40 | 0.60 | +2 MiB |" in lines
    assert any(line.endswith("| 500 clients, 2.0 s |") for line in lines)


@pytest.mark.parametrize(
    ("costs", "knee"),
    [
        ({1: 9.0, 2: 5.0, 4: 4.1, 8: 4.0, 16: 4.7}, {"from": 4, "until": 16, "cheapest": 8}),
        ({1: 4.0, 2: 4.0, 4: 6.0, 8: 4.1}, {"from": 1, "until": 2, "cheapest": 1}),
        ({3: 1.0}, {"from": 3, "until": 3, "cheapest": 3}),
    ],
)
def test_knee_is_the_range_of_neighbours_that_cost_little_more(
    costs: dict[int, float], knee: dict[str, int]
) -> None:
    assert growth.find_knee(costs) == knee


def test_growth_page_tells_costs_and_knees() -> None:
    row = {
        "value": 64,
        **dict.fromkeys(("steps_per_s", "server_us_per_step"), TOLD),
        "messages_per_s": 10.0,
        "server_cores": 0.9,
    }
    weights = {**WIRE_RESULT["weights"][0], "value": 40}
    knee = {"from": 64, "until": 64, "cheapest": 64}
    result = {
        "env": "ALE/Pong-v5",
        "base": growth._BASE._asdict(),
        "tolerance": 0.2,
        "ingest": {"num_actors": [row]},
        "weights": [weights],
        "knees": {"num_actors": knee, "weights_mb": knee},
    }

    lines = growth.render(result).splitlines()

    assert "| actors | 64 | 2 | 10 | 2.00 (100%) | 0.90 |" in lines
    assert "| actors | 64 | 64 |" in lines
    assert growth.figures(result)["one_front_end_cores"] == 0.9


@pytest.mark.parametrize("source", [make_pixels(2, 1, 2), make_vectors(3, 4, 2)])
def test_unroll_source_that_was_saved_is_the_same(source: UnrollSource, tmp_path: Path) -> None:
    source.save(tmp_path)

    loaded = UnrollSource.load(tmp_path)

    assert (loaded.spec, loaded.num_slots) == (source.spec, source.num_slots)
    for one, other in zip(loaded.messages, source.messages, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
