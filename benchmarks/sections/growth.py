"""What ingest costs as things grow: `python -m benchmarks.sections.growth --quick`.

Synthetic actors send packed Pong unrolls, so that the front end is the limit: 1 to 256 of them,
more environment slots to a message, longer unrolls, larger batches; and weights of more megabytes.
One thing grows at a time from the sizes in `_BASE`; its values are measured in turn, round by
round. Then front ends: several of them against one. A section of the suite, or alone.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.rigs.front_end_alone import make_config, stand_in
from benchmarks.rigs.synthetic_actors import SyntheticActors
from benchmarks.rigs.unroll_source import record_atari
from benchmarks.sections.front_ends import find_figures, measure_front_ends, render_front_ends
from benchmarks.sections.wire_ingest import IngestWindow, measure_window
from benchmarks.sections.wire_weights import measure_weights
from benchmarks.suite.alone import run_alone
from benchmarks.suite.section import BenchSettings, Json, summarise

TITLE = "Growth"
_ENV = "ALE/Pong-v5"
_TOLERANCE = 0.2
_NUM_MESSAGES = 4
_FRONT_END_ACTORS = 64


class Sizes(NamedTuple):
    """What an ingest is measured with.

    Attributes:
      num_actors: streams.
      num_slots: N, unrolls of a message.
      unroll_length: T.
      batch_size: B.
    """

    num_actors: int
    num_slots: int
    unroll_length: int
    batch_size: int


_BASE = Sizes(num_actors=16, num_slots=8, unroll_length=20, batch_size=32)
_VALUES: dict[str, Sequence[int]] = {
    "num_actors": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "num_slots": (1, 2, 4, 8, 16, 32, 64),
    "unroll_length": (5, 10, 20, 40, 80, 160),
    "batch_size": (4, 8, 16, 32, 64, 128),
}
_QUICK_VALUES: dict[str, Sequence[int]] = {
    "num_actors": (1, 4),
    "num_slots": (1, 8),
    "unroll_length": (5, 20),
    "batch_size": (8, 32),
}
_TOLD_VALUES: dict[str, Sequence[int]] = {
    "num_actors": (1, 64, 256),
    "num_slots": (1, 8, 32),
    "unroll_length": (5, 80),
    "batch_size": (),
    "weights": (1, 10, 100),
}
"""Those with a row on the page; the knees are of all values."""
_TITLES = {
    "num_actors": "actors",
    "num_slots": "environment slots to a message, N",
    "unroll_length": "T",
    "batch_size": "B",
}


def measure(settings: BenchSettings) -> Json:
    """Measures everything that grows."""
    quick = settings.is_quick
    window_s = 0.3 if quick else 2 * settings.part_window_s
    values = _QUICK_VALUES if quick else _VALUES
    ingest = {
        name: _measure_growth(name, values[name], settings.num_windows, window_s) for name in values
    }
    megabytes = (1, 4) if quick else (1, 4, 10, 40, 100)
    weights = [
        {"value": size, **measure_weights(4, size * 1_000_000, settings.num_windows)}
        for size in megabytes
    ]
    return {
        "env": _ENV,
        "base": _BASE._asdict(),
        "tolerance": _TOLERANCE,
        "ingest": ingest,
        "weights": weights,
        "front_ends": measure_front_ends(settings),
    }


def find_knee(costs: Mapping[int, float], tolerance: float = _TOLERANCE) -> Json:
    """Returns from where to where growing changes the cost little.

    The rule: the range of neighbouring values around the cheapest one whose cost is at most
    `tolerance` above its. Below `from`, growth still pays; above `until`, it has its price.

    Args:
      costs: cost of a unit of work by size.
      tolerance: a share of the least cost.
    """
    sizes = sorted(costs)
    cheapest = min(sizes, key=lambda size: costs[size])
    limit = (1.0 + tolerance) * costs[cheapest]
    first = last = sizes.index(cheapest)
    while first > 0 and costs[sizes[first - 1]] <= limit:
        first -= 1
    while last + 1 < len(sizes) and costs[sizes[last + 1]] <= limit:
        last += 1
    return {"from": sizes[first], "until": sizes[last], "cheapest": cheapest}


def _find_knees(result: Json) -> dict[str, Json]:
    """Returns the knee of everything that grows; weights too few for the CPU clock are left out."""
    knees = {
        name: find_knee({row["value"]: row["server_us_per_step"]["median"] for row in rows})
        for name, rows in result["ingest"].items()
    }
    costs = {row["value"]: row["server_s_per_gb"] for row in result["weights"]}
    return {**knees, "weights_mb": find_knee({size: cost for size, cost in costs.items() if cost})}


def _measure_growth(
    name: str, values: Sequence[int], num_windows: int, window_s: float
) -> list[Json]:
    """Returns a row for each value of one size; all of them stand ready while each is measured."""
    windows: dict[int, list[IngestWindow]] = {value: [] for value in values}
    with contextlib.ExitStack() as stack:
        measures = {}
        if name == "num_actors":  # the same actors: those beyond the value stay idle
            largest = _serve(stack, _BASE._replace(num_actors=max(values)))
            measures = {value: _bind(largest, window_s, value) for value in values}
        else:
            for value in values:
                serving = _serve(stack, _BASE._replace(**{name: value}))
                measures[value] = _bind(serving, window_s, 0)
        for _ in range(num_windows):
            for value, measure_one in measures.items():
                windows[value].append(measure_one())
    return [_describe(value, _BASE._replace(**{name: value}), windows[value]) for value in values]


_Serving = Callable[[float, int], IngestWindow]


def _bind(serving: _Serving, window_s: float, num_actors: int) -> Callable[[], IngestWindow]:
    return lambda: serving(window_s, num_actors)


def _serve(stack: contextlib.ExitStack, sizes: Sizes) -> _Serving:
    """Starts a front end and its actors; returns what measures a window of them."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    record_atari(_ENV, sizes.unroll_length, sizes.num_slots, _NUM_MESSAGES).save(folder)
    config = make_config(sizes.unroll_length, sizes.batch_size)
    server = stack.enter_context(stand_in(config))
    actors = stack.enter_context(
        SyntheticActors(server.address, folder, sizes.num_actors, packs_each=False)
    )
    return lambda window_s, num_actors: measure_window(server, actors, window_s, num_actors)


def _describe(value: int, sizes: Sizes, windows: list[IngestWindow]) -> Json:
    steps = sizes.unroll_length
    return {
        "value": value,
        "steps_per_s": summarise([window.unrolls_per_s * steps for window in windows]),
        "messages_per_s": statistics.median(w.unrolls_per_s / sizes.num_slots for w in windows),
        "server_us_per_step": summarise([1e3 * window.server_ms / steps for window in windows]),
        "server_cores": statistics.median(window.server_cores for window in windows),
    }


def render(result: Json) -> str:
    """Returns one table, the knees, and several front ends against one."""
    base = result["base"]
    lines = [
        f"{result['env']} unrolls, packed once, from synthetic actors: N {base['num_slots']}, "
        f"T {base['unroll_length']}, B {base['batch_size']}, {base['num_actors']} actors, except "
        "for what grows.\n",
        "| what grows | | steps/s | messages/s | front end us/step (spread) | its cores |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in result["ingest"].items():
        lines += [
            f"| {'' if number else _TITLES[name]} | {row['value']} | "
            f"{row['steps_per_s']['median']:,.0f} | "
            f"{row['messages_per_s']:,.0f} | {row['server_us_per_step']['median']:.2f} "
            f"({row['server_us_per_step']['spread']:.0%}) | {row['server_cores']:.2f} |"
            for number, row in enumerate(
                [row for row in rows if row["value"] in _TOLD_VALUES[name]]
            )
        ]
    weights = ", ".join(
        f"{row['gb_per_s']['median']:.2f} ({row['value']} MB)"
        for row in result["weights"]
        if row["value"] in _TOLD_VALUES["weights"]
    )
    lines += [
        f"\nWeights to 4 clients, GB/s: {weights}.",
        "\nCheap: a step (a GB) costs the front end at most "
        f"{result['tolerance']:.0%} more than at the cheapest value.\n",
        "| what grows | cheap from | until |",
        "|---|---|---|",
    ]
    lines += [
        f"| {_TITLES.get(name, 'weights, MB')} | {knee['from']} | {knee['until']} |"
        for name, knee in _find_knees(result).items()
    ]
    if "front_ends" in result:  # results of earlier commits have none
        lines.append(render_front_ends(result["front_ends"]))
    return "\n".join(lines) + "\n"


def figures(result: Json) -> dict[str, float]:
    """Returns the knees, what one front end takes in from many actors, and several against it."""
    knees = _find_knees(result)
    found = {f"{name}_cheap_from": float(knee["from"]) for name, knee in knees.items()}
    found |= {f"{name}_cheap_until": float(knee["until"]) for name, knee in knees.items()}
    for row in result["ingest"]["num_actors"]:
        if row["value"] == _FRONT_END_ACTORS:
            found["one_front_end_steps_per_s"] = row["steps_per_s"]["median"]
            found["one_front_end_cores"] = row["server_cores"]
    return found | (find_figures(result["front_ends"]) if "front_ends" in result else {})


def main() -> None:
    """Runs it alone."""
    run_alone("growth", measure, render, figures)


if __name__ == "__main__":
    main()
