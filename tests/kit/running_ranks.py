"""RunningRanks: learner ranks as processes, with actors on threads of the test.

Each rank is one process: its learner and its front end are threads of it. Leaving the context kills
what is still there.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from running_server import RunningActor

from impala_actor.acting.actor_config import ActorConfig
from impala_common.config import TrainConfig
from impala_common.config.toml_io import dump_config
from impala_common.run.metrics import read_metrics
from impala_common.run.run_directory import RunDirectory
from impala_server.ranks.place import make_local_places
from impala_server.ranks.rank_settings import rank_folder

_START_S = 120.0
_POLL_S = 0.05


class RunningRanks:
    """The ranks of one life of a run.

    Attributes:
      run: the run's folder.
      processes: by rank.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        num_ranks: int = 2,
        failpoints: Mapping[int, str] | None = None,
        settings: Mapping[int, TrainConfig] | None = None,
    ) -> None:
        """Starts them in the folder `path`.

        Args:
          path: for the run, in its folder `run`, and for what the ranks say.
          config: settings of all ranks.
          num_ranks: how many.
          failpoints: armed in a rank.
          settings: of a rank that gets others.
        """
        self.run = RunDirectory(path / "run")
        self._errors = [
            path / f"rank-{rank}-{time.monotonic_ns()}.err" for rank in range(num_ranks)
        ]
        self._actors: list[RunningActor] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        command = [sys.executable, "-m", "impala_server.ranks.command"]
        meeting = path / f"meeting-{time.monotonic_ns()}"
        for place in make_local_places(num_ranks, meeting):
            # That of a life that was killed.
            rank_folder(self.run, place.rank).address_path.unlink(missing_ok=True)
            own = (settings or {}).get(place.rank, config)
            own = dataclasses.replace(
                own, ranks=dataclasses.replace(own.ranks, learner_ranks=num_ranks)
            )
            armed = {"IMPALA_FAILPOINTS": (failpoints or {}).get(place.rank, "")}
            with self._errors[place.rank].open("wb") as errors:
                process = subprocess.Popen(
                    [*command, str(self.run.path), place.to_argument(), "WARNING"],
                    stdin=subprocess.PIPE,
                    stdout=errors,
                    stderr=errors,
                    start_new_session=True,
                    env={
                        **os.environ,
                        "OMP_NUM_THREADS": "1",
                        "GLOO_SOCKET_IFNAME": "lo",
                        **{name: value for name, value in armed.items() if value},
                    },
                )
            assert process.stdin is not None
            process.stdin.write(dump_config(own).encode())
            process.stdin.close()
            self.processes.append(process)

    def __enter__(self) -> RunningRanks:
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        for actor in self._actors:
            actor._stop.set()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(10.0)
        for actor in self._actors:
            actor.thread.join(20.0)

    def run_actors(self, env: str, num_actors: int = 2, **settings: Any) -> None:
        """Starts actors, which know the address of rank 0 only."""
        address = self.address(0)
        for _ in range(num_actors):
            name = f"actor-{len(self._actors)}"
            settings = {"env_backend": "sync", "connect_timeout_s": 120.0} | settings
            config = ActorConfig(server=address, env=env, actor_id=name, **settings)
            self._actors.append(RunningActor(config))

    def address(self, rank: int) -> str:
        """Returns where a rank listens, waiting for it."""
        path = rank_folder(self.run, rank).address_path
        self.wait_until(path.exists, "address", _START_S)
        return path.read_text().strip()

    def metrics(self, rank: int = 0) -> list[dict[str, Any]]:
        """Returns a rank's lines of metrics."""
        path = rank_folder(self.run, rank).metrics_path
        return read_metrics(path) if path.exists() else []

    def newest(self, name: str) -> float:
        """Returns a number of the newest line of metrics; 0 before the first."""
        lines = [line for line in self.metrics() if line.get(name) is not None]
        return float(lines[-1][name]) if lines else 0.0

    def error(self, rank: int) -> str:
        """Returns what a rank has said."""
        return self._errors[rank].read_text(errors="replace")

    def wait_until(self, is_so: Callable[[], Any], what: str, timeout_s: float = 40.0) -> None:
        """Waits until `is_so`, while all ranks run."""
        deadline_s = time.monotonic() + timeout_s
        while not is_so():
            ended = [rank for rank, one in enumerate(self.processes) if one.poll() is not None]
            assert not ended, f"rank {ended} ended before {what}: {self.error(ended[0])}"
            assert time.monotonic() < deadline_s, f"no {what}: {[self.error(r) for r in (0, 1)]}"
            threading.Event().wait(_POLL_S)

    def wait(self, rank: int, timeout_s: float) -> int:
        """Returns the exit code of a rank, waiting for its end."""
        try:
            return self.processes[rank].wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"rank {rank} goes on; it said: {self.error(rank)}") from None
