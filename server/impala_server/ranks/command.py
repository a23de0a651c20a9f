"""The process of a further learner rank that impala-train starts on this machine.

    python -m impala_server.ranks.command RUN PLACE LEVEL

Reads the settings (TOML) from stdin. Ends when the run ends, on SIGTERM, or with the command that
started it: its learner then misses the other ranks.
"""

from __future__ import annotations

import sys

from impala_common.config.toml_io import parse_config
from impala_common.errors import ImpalaError
from impala_common.process.exit_codes import OK, exit_code_of
from impala_common.process.logs import configure_logging, write_line
from impala_common.run.run_directory import RunDirectory
from impala_server.interrupts import Interrupts
from impala_server.ranks.place import RankPlace
from impala_server.ranks.rank_settings import fit_to_rank, rank_folder
from impala_server.supervisor import Supervisor

_POLL_S = 0.2


def main(run_path: str, place_text: str, level: str) -> int:
    """Runs the rank; returns the exit code."""
    place = RankPlace.from_argument(place_text)
    configure_logging(level, f"rank-{place.rank}", "text")
    try:
        run = rank_folder(RunDirectory(run_path), place.rank)
        config = fit_to_rank(parse_config(sys.stdin.read()), place)
        with run.lock(), Interrupts() as interrupts:
            supervisor = Supervisor(config, run, level, "text", place=place)
            try:
                supervisor.start()
                supervisor.wait_until_bound()
                while supervisor.poll(_POLL_S) is not None and not interrupts.is_set():
                    pass
            finally:
                supervisor.close(interrupts.is_set)
            supervisor.raise_if_incomplete()
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
