"""Figures of a faulted run: how soon things went on, and whether memory stayed where it was."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

_WARM_S = 20.0
_TERM_SERVER_S, _TERM_ACTOR_S = 25.0, 6.0
_MIB = 2.0**20


class Samples:
    """Memory and descriptors of processes over time, by name and life."""

    def __init__(self) -> None:
        # By name and when it began: the numbers of processes come again.
        self._series: dict[tuple[str, float], list[tuple[float, int, int]]] = {}

    def take(self, processes: Iterable[tuple[str, psutil.Process]]) -> None:
        """Adds a sample of each."""
        for name, process in processes:
            try:
                key = (name, process.create_time())
                sample = (time.monotonic(), process.memory_info().rss, process.num_fds())
            except psutil.Error:
                continue
            self._series.setdefault(key, []).append(sample)

    def summarise(self) -> dict[str, Any]:
        """Returns, by name, the most memory and descriptors, and slopes of its longest life."""
        summary: dict[str, Any] = {}
        for name in sorted({name for name, _ in self._series}):
            lives = [series for (of, _), series in self._series.items() if of == name]
            longest = max(lives, key=lambda series: series[-1][0] - series[0][0])
            warm = [one for one in longest if one[0] >= longest[0][0] + _WARM_S]
            summary[name] = {
                "rss_max_mib": round(max(s[1] for life in lives for s in life) / _MIB, 1),
                "descriptors_max": max(s[2] for life in lives for s in life),
                "longest_life_s": round(longest[-1][0] - longest[0][0], 1),
                "rss_slope_mib_per_h": _slope_per_h([(s[0], s[1] / _MIB) for s in warm]),
                "descriptors_slope_per_h": _slope_per_h([(s[0], s[2]) for s in warm]),
            }
        return summary


def _slope_per_h(points: list[tuple[float, float]]) -> float | None:
    """Returns the slope of the straight line nearest to `points`; None for too few of them."""
    if len(points) < 6:
        return None
    times, values = np.array(points).T
    return round(float(np.polyfit(times - times[0], values, 1)[0]) * 3600, 2)


def measure_recovery(folder: Path) -> dict[str, Any]:
    """Returns how soon a run went on after its learner had gone.

    `kill_to_update_s`: from the kill, or where a failpoint did it the end of the command, to the
    first update of the next life. `back_to_actors_s`: from the learner being there again to the
    first verdict of each actor that had lived through it. Where a partition or a stopped process
    fell into that time, it is left out: that wait is the fault's, not ours.
    """
    faults = list(read_events(folder / "nemesis.jsonl"))
    lives = sorted(_learner_lives(folder))
    backs = sorted(
        next(read_events(path))["time_s"] for path in (folder / "history").glob("front_end-*")
    )
    updates, returns = [], []
    for gone_s in _times_gone(faults):
        after = [life for life in lives if life[0] > gone_s]
        if after and after[0][1] and not _overlaps(_blocked(faults), gone_s, after[0][1]):
            updates.append(after[0][1] - gone_s)
    oks = [_verdict_times(path) for path in (folder / "history").glob("actor-*")]
    blocked = {actor: _blocked(faults, actor) for actor, _ in oks}
    for back_s, next_s in itertools.pairwise([*backs[1:], float("inf")]):
        for actor, times in oks:
            first = times[np.searchsorted(times, back_s) :][:1]
            if not len(first) or times[0] > back_s or first[0] > next_s:
                continue  # it came later, or the learner went again before
            if not _overlaps(blocked[actor], back_s, float(first[0])):
                returns.append(float(first[0]) - back_s)
    return {"kill_to_update_s": _quantiles(updates), "back_to_actors_s": _quantiles(returns)}


def find_late_exits(faults: list[dict[str, Any]]) -> list[str]:
    """Returns who did not end in time after SIGTERM, of what a nemesis wrote down.

    A process that is stopped cannot answer: its time begins when it goes on.
    """
    late = []
    for asked in faults:
        if asked["event"] not in ("actor_term", "learner_term"):
            continue
        is_actor = asked["event"] == "actor_term"
        name = f"actor-{asked['target']}" if is_actor else "server"
        limit_s = _TERM_ACTOR_S if is_actor else _TERM_SERVER_S
        since_s = asked["time_s"]
        for begin_s, end_s in _stopped(faults, asked["target"], is_actor):
            if begin_s <= since_s < end_s:
                since_s = end_s
        ends = [one for one in faults if one["event"] == "exit" and one["name"] == name]
        times = [one["noticed_s"] for one in ends if one["noticed_s"] >= asked["time_s"]]
        ended_s = times[0] if times else faults[-1]["time_s"]
        if ended_s > since_s + limit_s:
            late.append(f"{name}: not within {limit_s:g} s (at {asked['time_s']:.1f})")
    return late


def _stopped(
    faults: list[dict[str, Any]], target: int, is_actor: bool
) -> Iterator[tuple[float, float]]:
    """Yields when a process, or one that it has to wait for, was stopped; all go on at the end."""
    healed_s = next((one["time_s"] for one in faults if one["event"] == "healed"), float("inf"))
    for one in faults:
        if one["event"] == ("actor_stop" if is_actor else "learner_stop") and (
            not is_actor or one["target"] == target
        ):
            yield one["time_s"], min(one["time_s"] + one["duration_s"], healed_s)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the events of a file, but for a torn last line."""
    with path.open("rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return


def _times_gone(faults: list[dict[str, Any]]) -> list[float]:
    """Returns when the learner was killed: at the last kill before each end of the server."""
    gone, kills = [], []
    for one in faults:
        if one["event"] == "learner_kill" and "=" not in one["detail"]:
            kills.append(one["time_s"])
        elif one["event"] == "exit" and one["name"] == "server" and one["code"] not in (0, 75):
            gone.append(kills[-1] if kills else one["noticed_s"])
            kills.clear()
    return gone


def _learner_lives(folder: Path) -> Iterator[tuple[float, float]]:
    """Yields (begin, first update or 0) of every life."""
    for path in (folder / "history").glob("learner-*"):
        begin, first = 0.0, 0.0
        for event in read_events(path):
            begin = begin or event["time_s"]
            if event["event"] == "trained":
                first = event["time_s"]
                break
        yield begin, first


def _verdict_times(path: Path) -> tuple[str, np.ndarray[Any, Any]]:
    """Returns an actor's name and when it heard of unrolls that were taken."""
    begin, *events = read_events(path)
    times = [one["time_s"] for one in events if one["event"] == "ok"]
    return begin["actor_id"], np.array(times)


def _blocked(faults: list[dict[str, Any]], actor_id: str = "") -> list[tuple[float, float]]:
    """Returns when nothing could go on, or nothing of one actor."""
    of_all, of_one = ("partition", "learner_stop"), ("actor_stop", "acks_lost", "delay")
    return [
        (one["time_s"], one["time_s"] + one["duration_s"])
        for one in faults
        if one["event"] in of_all
        or (one["event"] in of_one and actor_id == f"actor-{one['target']}")
    ]


def _overlaps(spans: list[tuple[float, float]], start_s: float, end_s: float) -> bool:
    return any(begin < end_s and end > start_s for begin, end in spans)


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {
        "count": len(values),
        "p50": round(float(p50), 2),
        "p95": round(float(p95), 2),
        "max": round(max(values), 2),
    }
