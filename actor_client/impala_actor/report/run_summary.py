"""RunSummary: the state and the main numbers of a run's folder.

Read by impala-runs and impala-report, of runs that train, have ended or were killed. Only reads
small files and metrics.jsonl.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from impala_common.errors import ConfigError
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_data import RunData, read_run
from impala_common.run.run_directory import RunDirectory, reading
from impala_common.run.run_end import describe_newest, find_total_steps

State = Literal["running", "finished", "stopped", "empty", "unreadable"]
"""running: a process holds the run's lock; finished: all steps are trained; stopped: some are;
empty: no line of metrics; unreadable: settings that this version cannot read."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunSummary:
    """One run.

    Attributes:
      path: its folder.
      state: see State.
      env: id of its environment; empty where it cannot be read.
      steps: agent steps trained.
      total_steps: agent steps at which it ends; 0 where it cannot be read.
      return_mean: mean return of recent episodes.
      best_return_mean: largest mean return of an evaluation, else of recent episodes.
      training_s: seconds of training.
      age_s: seconds since the folder's files last changed; 0 where that cannot be read.
      problem: why it is unreadable; else empty.
    """

    path: Path
    state: State
    env: str = ""
    steps: int = 0
    total_steps: int = 0
    return_mean: float | None = None
    best_return_mean: float | None = None
    training_s: float | None = None
    age_s: float = 0.0
    problem: str = ""

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Returns a JSON-serialisable form."""
        return dataclasses.asdict(self) | {"path": str(self.path)}


def summarise_run(path: Path) -> RunSummary:
    """Returns the summary of a run's folder; never raises for its contents, or what is closed."""
    try:
        return summarise_data(read_run(path))
    except ConfigError as error:
        state: State = "running" if is_running(path) else "unreadable"
        return RunSummary(path, state, age_s=_age_s(path), problem=str(error))


def summarise_data(data: RunData) -> RunSummary:
    """Returns the summary of a run that was read."""
    last = data.metrics[-1] if data.metrics else {}
    steps = int(last.get(metrics.STEPS, 0))
    newest = describe_newest(CheckpointStore(RunDirectory(data.path).checkpoints_path))
    total = find_total_steps(data.config.job.total_steps, newest)
    if is_running(data.path):
        state: State = "running"
    elif not data.metrics:
        state = "empty"
    else:
        state = "finished" if steps >= total else "stopped"
    return RunSummary(
        path=data.path,
        state=state,
        env=data.config.environment.env,
        steps=steps,
        total_steps=total,
        return_mean=_newest(data, metrics.RETURN_MEAN),
        best_return_mean=_find_best(data),
        training_s=_newest(data, metrics.TIME_S),
        age_s=_age_s(data.path),
    )


def find_runs(folder: Path) -> list[Path]:
    """Returns the runs in `folder`, up to two levels below it, the newest change first.

    Raises:
      ConfigError: there is no such folder, or it is closed to us.
    """
    rule = "a folder with runs"
    with reading("FOLDER", folder, rule):
        if not folder.is_dir():
            raise ConfigError("FOLDER", str(folder), rule, "there is none")
        first = _folders_in(folder)
    found = [folder, *first]
    for one in first:
        with contextlib.suppress(OSError):  # closed to us, or removed meanwhile
            found += _folders_in(one)
    found = [one for one in found if os.path.isfile(RunDirectory(one).config_path)]
    return sorted(found, key=_age_s)


def _folders_in(folder: Path) -> list[Path]:
    # DirEntry.is_dir() raises where a link leads into a closed folder.
    return [folder / entry.name for entry in os.scandir(folder) if os.path.isdir(entry)]


def is_running(path: Path) -> bool:
    """Returns whether a process of this machine holds the run's lock."""
    try:
        descriptor = os.open(RunDirectory(path).lock_path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # A trial lock could keep a learner from starting: only tried while the holder named in the
        # file is alive.
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        if not holder.isdigit() or not Path("/proc", holder).exists():
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _find_best(data: RunData) -> float | None:
    evaluations = [point.return_mean for point in data.evaluations]
    recent = _values(data.metrics, metrics.RETURN_MEAN)
    return max(evaluations or recent, default=None)


def _newest(data: RunData, name: str) -> float | None:
    values = _values(data.metrics, name)
    return values[-1] if values else None


def _values(lines: Sequence[dict[str, Any]], name: str) -> list[float]:  # Any: JSON
    return [float(line[name]) for line in lines if isinstance(line.get(name), int | float)]


def _age_s(path: Path) -> float:
    """Returns the seconds since metrics or settings were last written; 0 where unknown."""
    run = RunDirectory(path)
    for files in ((run.metrics_path, run.config_path), (path,)):
        times = []
        for file in files:
            with contextlib.suppress(OSError):
                times.append(file.stat().st_mtime)
        if times:
            return max(0.0, time.time() - max(times))
    return 0.0
