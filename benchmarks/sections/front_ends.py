"""One front end against several that share nothing: the most that further processes could bring.

Used by the section `growth`. Every front end is complete, with sessions, storage and a port of its
own, and has an equal share of the same number of synthetic actors. The product has one; several of
them would have to share what these do not (ADR 0027), so theirs is a bound. All of them stand
ready while each is measured, in turn.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rigs.front_end_alone import FrontEndAlone, make_config, stand_in
from benchmarks.rigs.synthetic_actors import SyntheticActors
from benchmarks.rigs.unroll_source import UnrollSource, make_vectors, record_atari
from benchmarks.rigs.worker_process import pin
from benchmarks.suite.section import BenchSettings, Json, summarise

TITLE = "More than one front end"
_ENV = "ALE/Pong-v5"
_NUM_ACTORS = 64
_WARM_UP_S = 0.5
_MANY_CORES = 6
_WORDS = {2: "two", 4: "four"}


class Kind(NamedTuple):
    """Unrolls to send.

    Attributes:
      name: in the names of figures.
      title: for people.
      source: the unrolls.
      batch_size: B.
    """

    name: str
    title: str
    source: UnrollSource
    batch_size: int


class Placement(NamedTuple):
    """Who runs where.

    Attributes:
      name: in the names of figures.
      front_ends: cores of all front ends.
      actors: cores of all actors.
    """

    name: str
    front_ends: list[int]
    actors: list[int]


class Window(NamedTuple):
    """What a window of ingest took, front ends together and actors together.

    Attributes:
      unrolls_per_s: accepted.
      front_end_cores: how many cores front ends kept busy.
      actor_cores: how many actors did.
    """

    unrolls_per_s: float
    front_end_cores: float
    actor_cores: float


class _Serving(NamedTuple):
    """A front end and the actors that are its own."""

    server: FrontEndAlone[Any]
    actors: SyntheticActors


def measure_front_ends(settings: BenchSettings) -> Json:
    """Measures both kinds of unrolls with each number of front ends, free and pinned."""
    quick = settings.is_quick
    num_actors = 4 if quick else _NUM_ACTORS
    kinds = (
        Kind("pong", f"{_ENV}, T 80", record_atari(_ENV, 80, 1, 4 if quick else 16), 16),
        Kind("vectors", "vectors of 4, 8 slots, T 20", make_vectors(20, 8, 4 if quick else 16), 32),
    )
    window_s = 0.3 if quick else 2 * settings.part_window_s
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    counts = choose_counts(len(cores))
    rows = [
        row
        for kind in kinds
        for row in measure_kind(kind, counts, cores, num_actors, settings.num_windows, window_s)
    ]
    return {"cores": len(cores), "num_actors": num_actors, "rows": rows}


def choose_counts(num_cores: int) -> tuple[int, ...]:
    """Returns how many front ends to compare on a machine with that many cores."""
    return (1, 2, 4) if num_cores >= _MANY_CORES else (1, 2)


def choose_placements(cores: Sequence[int]) -> list[Placement]:
    """Returns all on all cores and, where there are two or more, each side on half of them."""
    half = len(cores) // 2
    placements = [Placement("free", list(cores), list(cores))]
    if half:
        placements.append(Placement("pinned", list(cores[:half]), list(cores[half:])))
    return placements


def measure_kind(
    kind: Kind,
    counts: Sequence[int],
    cores: Sequence[int],
    num_actors: int,
    num_windows: int,
    window_s: float,
) -> list[Json]:
    """Returns a row for each placement and number of front ends; the first number is the base."""
    placements = choose_placements(cores)
    # As many processes of actors with any number of front ends, and enough not to be the limit.
    num_shares = max(counts) * max(1, len(cores) // max(counts) - 1)
    windows: dict[tuple[str, int], list[Window]] = {
        (placement.name, count): [] for placement in placements for count in counts
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kind.source.save(folder)
        groups = {
            count: _start(stack, kind, folder, count, num_actors, num_shares) for count in counts
        }
        for _ in range(num_windows):
            for placement in placements:
                for count, group in groups.items():
                    _place(group, placement)
                    window = _measure_window(group, window_s)
                    windows[placement.name, count].append(window)
    return [
        _describe(kind, placement, count, several, windows[placement, counts[0]])
        for (placement, count), several in windows.items()
    ]


def _start(
    stack: contextlib.ExitStack,
    kind: Kind,
    folder: Path,
    count: int,
    num_actors: int,
    num_shares: int,
) -> list[_Serving]:
    """Starts `count` front ends, each with its share of the actors."""
    config = make_config(kind.source.spec.unroll_length, kind.batch_size)
    group = []
    for number in range(count):
        server = stack.enter_context(stand_in(config))
        actors = SyntheticActors(
            server.address,
            folder,
            len(range(number, num_actors, count)),
            num_processes=num_shares // count,
            packs_each=False,
        )
        group.append(_Serving(server, stack.enter_context(actors)))
    return group


def _place(group: list[_Serving], placement: Placement) -> None:
    for serving in group:
        pin(serving.server.process, placement.front_ends)
        serving.actors.pin(placement.actors)


def _measure_window(group: list[_Serving], window_s: float) -> Window:
    """Lets all actors of the group send for a window."""
    with contextlib.ExitStack() as stack:
        for serving in group:
            stack.enter_context(serving.actors.at_work(0.0))
        time.sleep(_WARM_UP_S)
        before = [(serving.actors.totals(), serving.server.cpu_s) for serving in group]
        time.sleep(window_s)
        after = [(serving.actors.totals(), serving.server.cpu_s) for serving in group]
    unrolls_per_s = front_end_cores = actor_cores = 0.0
    for (begun, begun_s), (ended, ended_s) in zip(before, after, strict=True):
        wall_s = ended.time_s - begun.time_s
        unrolls_per_s += (ended.num_unrolls - begun.num_unrolls) / wall_s
        front_end_cores += (ended_s - begun_s) / wall_s
        actor_cores += (ended.cpu_s - begun.cpu_s) / wall_s
    if unrolls_per_s == 0.0:
        raise SystemExit("no unroll arrived within a window")
    return Window(unrolls_per_s, front_end_cores, actor_cores)


def _describe(
    kind: Kind, placement: str, count: int, windows: list[Window], base: list[Window]
) -> Json:
    steps = kind.source.spec.unroll_length
    rates = [window.unrolls_per_s * steps for window in windows]
    ratios = [w.unrolls_per_s / b.unrolls_per_s for w, b in zip(windows, base, strict=True)]
    front_ends = [window.front_end_cores for window in windows]
    actors = [window.actor_cores for window in windows]
    return {
        "kind": kind.name,
        "title": kind.title,
        "placement": placement,
        "front_ends": count,
        "steps_per_s": summarise(rates),
        "ratio_to_one": summarise(ratios),
        "front_end_us_per_step": summarise(_us_per_step(front_ends, rates)),
        "actor_us_per_step": summarise(_us_per_step(actors, rates)),
        "front_end_cores": summarise(front_ends),
        "actor_cores": summarise(actors),
    }


def _us_per_step(cores: list[float], rates: list[float]) -> list[float]:
    return [1e6 * busy / rate for busy, rate in zip(cores, rates, strict=True)]


def render_front_ends(result: Json) -> str:
    """Returns a table."""
    lines = [
        f"\n{TITLE}, with {result['num_actors']} actors: the front ends share nothing, which "
        "bounds what several for one learner could bring "
        "([ADR 0027](adr/0027-one-front-end-process.md)). Pinned: front ends have one half of the "
        f"{result['cores']} cores, actors the other.\n",
        "| unrolls | where | front ends | steps/s | x one (spread) | front ends us/step | actors "
        "us/step | cores of front ends | of actors |",
        "|---" * 9 + "|",
    ]
    lines += [
        f"| {row['title']} | {row['placement']} | {row['front_ends']} | "
        f"{row['steps_per_s']['median']:,.0f} | {row['ratio_to_one']['median']:.2f} "
        f"({row['ratio_to_one']['spread']:.0%}) | {row['front_end_us_per_step']['median']:.2f} | "
        f"{row['actor_us_per_step']['median']:.2f} | {row['front_end_cores']['median']:.2f} | "
        f"{row['actor_cores']['median']:.2f} |"
        for row in result["rows"]
        if row["front_ends"] > 1  # one is what the others are held against
    ]
    return "\n".join(lines)


def find_figures(result: Json) -> dict[str, float]:
    """Returns steps per second of several front ends against one."""
    return {
        f"{_WORDS[row['front_ends']]}_front_ends_ratio_{row['kind']}_{row['placement']}": row[
            "ratio_to_one"
        ]["median"]
        for row in result["rows"]
        if row["front_ends"] in _WORDS
    }
