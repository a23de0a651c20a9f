"""Agent steps per second that the learner consumes in steady windows, and where CPU time goes."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.rigs.training_process import TrainingProcess
from benchmarks.suite.cases import ENDLESS
from benchmarks.suite.section import Json
from impala_common.run import metrics

_POLL_S = 0.02
_LINE_S = 30.0


class Window(NamedTuple):
    """What happened between two lines of metrics.

    Attributes:
      steps_per_s: agent steps trained on per second.
      policy_lag_mean: updates between acting and training.
      cpu_us_by_process: CPU microseconds per agent step.
      cpu_us_by_part: the same by what was done; see `_split`.
      other_cores: cores that everything else on the machine used: the noise.
      pss_mib_by_process: proportional share of memory at the end.
    """

    steps_per_s: float
    policy_lag_mean: float
    cpu_us_by_process: dict[str, float]
    cpu_us_by_part: dict[str, float]
    other_cores: float
    pss_mib_by_process: dict[str, float]


def measure_windows(
    env: str,
    *options: str,
    warm_up_s: float,
    window_s: float,
    num_windows: int,
    variables: Mapping[str, str] | None = None,
) -> list[Window]:
    """Trains `env` and returns windows of `window_s` after `warm_up_s` of training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        run = TrainingProcess(env, path, *ENDLESS, *options, variables=variables)
        with run:
            run.wait_for_updates(1)
            return list(take_windows(run, warm_up_s, window_s, num_windows))


def take_windows(
    run: TrainingProcess, warm_up_s: float, window_s: float, num_windows: int
) -> Iterator[Window]:
    """Yields each window of a training that has begun, when it is over."""
    time.sleep(warm_up_s)
    before = _Mark(run)
    for _ in range(num_windows):
        time.sleep(window_s)
        after = _Mark(run)
        yield _compare(before, after, run.lines())
        before = after


def measure_throughput(env: str, *options: str, warm_up_s: float, window_s: float) -> Json:
    """Returns steps/s and CPU microseconds per step by process of one window."""
    (window,) = measure_windows(
        env, *options, warm_up_s=warm_up_s, window_s=window_s, num_windows=1
    )
    return {"steps_per_s": window.steps_per_s, "cpu_us_per_step": window.cpu_us_by_process}


class _Mark:
    """The state of a training at the moment a line of metrics was written."""

    def __init__(self, run: TrainingProcess) -> None:
        """Waits for the next line."""
        before = run.last_line()[metrics.TIME_S]
        deadline_s = time.monotonic() + _LINE_S
        while (line := run.last_line())[metrics.TIME_S] == before:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"no line of metrics within {_LINE_S:g} s")
            time.sleep(_POLL_S)
        processes = run.processes()
        self.cpu_s = {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}
        self.machine_cpu_s = _busy_seconds()
        self.at_s = time.monotonic()
        self.steps: int = line[metrics.STEPS]
        self.time_s: float = line[metrics.TIME_S]
        self.pss_mib = {n: p.memory_full_info().pss / 2**20 for n, p in processes.items()}


def _busy_seconds() -> float:
    """Returns CPU seconds that this machine's cores have worked since it started."""
    times = psutil.cpu_times(percpu=True)
    mine = [times[core] for core in os.sched_getaffinity(0) if core < len(times)]
    return float(sum(sum(t) - t.idle - getattr(t, "iowait", 0.0) for t in mine))


def _compare(before: _Mark, after: _Mark, lines: list[Json]) -> Window:
    steps = max(after.steps - before.steps, 1)
    cpu_s = {n: after.cpu_s[n] - before.cpu_s[n] for n in after.cpu_s if n in before.cpu_s}
    between = [line for line in lines if before.time_s < line[metrics.TIME_S] <= after.time_s]
    cpu_us = {name: 1e6 * value / steps for name, value in cpu_s.items()}
    steps_per_s = steps / (after.time_s - before.time_s)
    other_s = after.machine_cpu_s - before.machine_cpu_s - sum(cpu_s.values())
    return Window(
        steps_per_s=steps_per_s,
        policy_lag_mean=_mean(between, metrics.POLICY_LAG_MEAN),
        cpu_us_by_process=cpu_us,
        cpu_us_by_part=_split(cpu_us, between, steps_per_s),
        other_cores=max(0.0, other_s / (after.at_s - before.at_s)),
        pss_mib_by_process=after.pss_mib,
    )


def _split(cpu_us: dict[str, float], lines: list[Json], steps_per_s: float) -> dict[str, float]:
    """Returns CPU time per step by part.

    A process is one part, but for actors and the learner: theirs is shared out as the wall time
    is that they report themselves, without what they waited.
    """
    actors = [value for name, value in cpu_us.items() if name.startswith("actor-")]
    environment, inference, blocked = (
        1e6 * _mean(lines, name)
        for name in (metrics.ENVIRONMENT_S, metrics.INFERENCE_S, metrics.BLOCKED_S)
    )
    busy = max(1e6 * len(actors) / steps_per_s - blocked, environment + inference, 1e-9)
    update, load = _mean(lines, metrics.UPDATE_S), _mean(lines, metrics.LOAD_S)
    learner = cpu_us.get("learner", 0.0)
    update_share = update / max(update + load, 1e-12)
    parts = {
        "environment": sum(actors) * environment / busy,
        "inference": sum(actors) * inference / busy,
        "build, encode, send": sum(actors) * (busy - environment - inference) / busy,
        "receive, decode, store": cpu_us.get("front end", 0.0),
        "load": learner * (1.0 - update_share),
        "update": learner * update_share,
        "command": cpu_us.get("command", 0.0),
    }
    return {name: round(value, 3) for name, value in parts.items()}


def _mean(lines: list[Json], name: str) -> float:
    values = [line[name] for line in lines if line.get(name) is not None]
    return statistics.fmean(values) if values else 0.0
