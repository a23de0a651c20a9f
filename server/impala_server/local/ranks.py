"""LocalRanks: the learner ranks from 1 on that impala-train starts on this machine.

Each is a learner server with a place of its own (`impala_server.ranks.command`); rank 0 is the
learner of the command itself. No rank is replaced when it dies: all end, and the run is resumed
from its checkpoint. Owned by the command's main thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import subprocess
import tempfile
from pathlib import Path

from impala_common.config import TrainConfig
from impala_common.config.toml_io import dump_config
from impala_common.errors import RankLostError
from impala_common.process.own_modules import python_command
from impala_common.process.starting import open_settings, starting
from impala_common.run.run_directory import RunDirectory, make_folder
from impala_server.ranks.place import ALONE, RankPlace, make_local_places

_LOG = logging.getLogger(__name__)
_STOP_S = 26.0  # a learner server ends within 25 s


class LocalRanks:
    """The processes of all ranks but the first.

    Attributes:
      first: the place of rank 0; alone where the settings ask for one learner.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory, log_level: str = "WARNING") -> None:
        """Prepares the ranks of `config` in the folder of `run`."""
        self._log_level = log_level
        self._config = config
        self._run = run
        num_ranks = config.ranks.learner_ranks
        self._meeting = Path(tempfile.gettempdir()) / f"impala-ranks-{secrets.token_hex(8)}"
        self._places = make_local_places(num_ranks, self._meeting) if num_ranks > 1 else [ALONE]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._failure = ""
        self.first: RankPlace = self._places[0]

    def start(self) -> None:
        """Starts the ranks; each logs to RUN/logs/rank-N.log.

        Raises:
          ImpalaError: one cannot be started.
        """
        for place in self._places[1:]:
            make_folder(self._run.log_path)
            command = [*python_command("impala_server.ranks.command"), str(self._run.path)]
            command += [place.to_argument(), self._log_level]
            with (
                starting(f"learner rank {place.rank}"),
                self._log_path(place.rank).open("ab") as log,
                open_settings(dump_config(self._config)) as settings,
            ):
                self._processes[place.rank] = subprocess.Popen(  # noqa: S603 (our own module)
                    command,
                    stdin=settings,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )

    def check(self) -> None:
        """Notes a rank that has failed; the learner ends by itself, with the reason."""
        for rank, process in self._processes.items():
            if not self._failure and process.poll():
                code = process.returncode
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                self._failure = (
                    f"learner rank {rank} died ({how}): {self._last_words(rank)} "
                    f"(log: {self._log_path(rank)})"
                )

    def raise_if_failed(self) -> None:
        """Raises RankLostError if a rank failed."""
        if self._failure:
            raise RankLostError(self._failure)

    def stop(self) -> None:
        """Ends the ranks: those that rank 0 did not end in order get SIGTERM."""
        for process in self._processes.values():
            try:
                process.wait(_STOP_S / 4)
            except subprocess.TimeoutExpired:
                process.terminate()
        for rank, process in self._processes.items():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                _LOG.error("learner rank %d did not end in time and is killed", rank)
                process.kill()
                process.wait()
        self.check()
        self._processes.clear()
        with contextlib.suppress(OSError):
            self._meeting.unlink(missing_ok=True)

    def _log_path(self, rank: int) -> Path:
        return self._run.log_path / f"rank-{rank}.log"

    def _last_words(self, rank: int) -> str:
        try:
            text = self._log_path(rank).read_text(errors="replace").strip()
        except OSError:
            text = ""  # removed by somebody
        errors = [line for line in text.splitlines() if "error: " in line]
        return errors[-1].partition("error: ")[2] if errors else "no message"
