"""The sections about the wire and about growth: knees, pages from canned results, sources."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.rigs.synthetic_actors import ActorTotals
from benchmarks.rigs.unroll_source import UnrollSource, make_pixels, make_vectors
from benchmarks.sections import front_ends, growth, wire
from benchmarks.suite.section import summarise
from benchmarks.suite.targets import load_targets

from impala_common.testing.unrolls import make_frames_spec, make_unrolls, split_unrolls

FRAMES = make_frames_spec()
STACKS = UnrollSource(FRAMES, 2, (split_unrolls(make_unrolls(FRAMES, 2, seed=1), FRAMES),))
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


FRONT_ENDS_RESULT = {
    "cores": 2,
    "num_actors": 64,
    "rows": [
        {
            "kind": "vectors",
            "title": "vectors",
            "placement": "free",
            "front_ends": count,
            "steps_per_s": summarise([6000.0 * ratio]),
            "ratio_to_one": summarise([ratio]),
            "front_end_us_per_step": summarise([3.0]),
            "actor_us_per_step": summarise([4.0]),
            "front_end_cores": summarise([1.4]),
            "actor_cores": summarise([0.6]),
        }
        for count, ratio in ((1, 1.0), (2, 1.5))
    ],
}
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
    below_the_clock = {**weights, "value": 1, "server_s_per_gb": 0.0}
    result = {
        "env": "ALE/Pong-v5",
        "base": growth._BASE._asdict(),
        "tolerance": 0.2,
        "ingest": {"num_actors": [row]},
        "weights": [below_the_clock, weights],
    }

    lines = growth.render(result).splitlines()

    assert "| actors | 64 | 2 | 10 | 2.00 (100%) | 0.90 |" in lines
    assert "| actors | 64 | 64 |" in lines
    assert "| weights, MB | 40 | 40 |" in lines
    assert growth.figures(result)["one_front_end_cores"] == 0.9
    assert not [line for line in lines if line.startswith("More than one front end")]

    lines = growth.render({**result, "front_ends": FRONT_ENDS_RESULT}).splitlines()
    found = growth.figures({**result, "front_ends": FRONT_ENDS_RESULT})

    assert "| vectors | free | 2 | 9,000 | 1.50 (0%) | 3.00 | 4.00 | 1.40 | 0.60 |" in lines
    assert found["two_front_ends_ratio_vectors_free"] == 1.5
    assert found["one_front_end_cores"] == 0.9


@pytest.mark.parametrize(
    ("num_cores", "counts", "placements"),
    [
        (1, (1, 2), [("free", [0], [0])]),
        (2, (1, 2), [("free", [0, 1], [0, 1]), ("pinned", [0], [1])]),
        (6, (1, 2, 4), [("free", [*range(6)], [*range(6)]), ("pinned", [0, 1, 2], [3, 4, 5])]),
    ],
)
def test_front_ends_on_more_cores_are_compared_in_greater_numbers(
    num_cores: int, counts: tuple[int, ...], placements: list[tuple[str, list[int], list[int]]]
) -> None:
    assert front_ends.choose_counts(num_cores) == counts
    assert front_ends.choose_placements(range(num_cores)) == placements


class ServingDouble:
    """A front end and its actors in one: each look at them finds a second gone.

    A second has 100 unrolls, and takes 0.5 s CPU of the front end and 0.25 s of the actors.
    """

    def __init__(self) -> None:
        self.process = "front end"
        self.num_seconds = 0
        self.is_at_work = False
        self.actor_cores: list[int] = []

    @property
    def server(self) -> ServingDouble:
        return self

    @property
    def actors(self) -> ServingDouble:
        return self

    @property
    def cpu_s(self) -> float:
        return 0.5 * self.num_seconds

    @contextlib.contextmanager
    def at_work(self, unused_warm_up_s: float) -> Iterator[None]:
        self.is_at_work = True
        yield
        self.is_at_work = False

    def totals(self) -> ActorTotals:
        assert self.is_at_work
        self.num_seconds += 1
        now = self.num_seconds
        return ActorTotals(100 * now, 100 * now, 0.25 * now, float(now))

    def pin(self, cores: list[int]) -> None:
        self.actor_cores = cores


def test_front_ends_in_one_window_are_added_up_and_held_against_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen failing with the rate of the first front end for all of them."""
    started: dict[int, list[ServingDouble]] = {}
    pinned: list[list[int]] = []

    def start(*arguments: Any) -> list[ServingDouble]:
        count = arguments[3]
        started[count] = [ServingDouble() for _ in range(count)]
        return started[count]

    monkeypatch.setattr(front_ends, "_start", start)
    monkeypatch.setattr(front_ends, "pin", lambda unused_process, cores: pinned.append(cores))
    monkeypatch.setattr(front_ends, "_WARM_UP_S", 0.0)
    kind = front_ends.Kind("vectors", "vectors", make_vectors(5, 2, 2), batch_size=4)

    rows = front_ends.measure_kind(kind, (1, 2), (4, 5), num_actors=4, num_windows=2, window_s=0.0)

    free_one, free_two, pinned_one, pinned_two = rows
    assert [row["placement"] for row in rows] == ["free", "free", "pinned", "pinned"]
    for one, two in ((free_one, free_two), (pinned_one, pinned_two)):
        assert (one["front_ends"], one["steps_per_s"]["windows"]) == (1, [500.0, 500.0])
        assert (two["front_ends"], two["steps_per_s"]["windows"]) == (2, [1000.0, 1000.0])
        assert two["ratio_to_one"]["windows"] == [2.0, 2.0]
        assert (two["front_end_cores"]["median"], two["actor_cores"]["median"]) == (1.0, 0.5)
        assert two["front_end_us_per_step"]["median"] == pytest.approx(1000.0)
        assert two["actor_us_per_step"]["median"] == pytest.approx(500.0)
    assert pinned == [[4, 5]] * 3 + [[4]] * 3 + [[4, 5]] * 3 + [[4]] * 3
    assert [one.actor_cores for several in started.values() for one in several] == [[5]] * 3


@pytest.mark.parametrize("source", [make_pixels(2, 1, 2), make_vectors(3, 4, 2), STACKS])
def test_unroll_source_that_was_saved_is_the_same(source: UnrollSource, tmp_path: Path) -> None:
    source.save(tmp_path)

    loaded = UnrollSource.load(tmp_path)

    assert (loaded.spec, loaded.num_slots) == (source.spec, source.num_slots)
    for one, other in zip(loaded.messages, source.messages, strict=True):
        assert one.num_unrolls == other.num_unrolls
        assert one.leaves.keys() == other.leaves.keys()
        for name, array in one.leaves.items():
            np.testing.assert_array_equal(array, other.leaves[name], strict=True)
        assert (one.frames is None) == (other.frames is None)
        if one.frames is not None and other.frames is not None:
            for part, of_other in zip(one.frames, other.frames, strict=True):
                np.testing.assert_array_equal(part, of_other, strict=True)
