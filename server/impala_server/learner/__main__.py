"""The learner process.

    python -m impala_server.learner RUN DESCRIPTORS LEVEL FORMAT THREADS PLACE [--objects-fd FD]

Started by the supervisor only, with the settings (TOML) on stdin. Ignores signals: the supervisor
handles them and sends "stop" through its pipe. A closed pipe means stop, too.
"""

from __future__ import annotations

import os
import signal
import sys

from impala_common.config.toml_io import parse_config
from impala_common.process import failpoints
from impala_common.process.allocator import keep_large_buffers
from impala_common.process.logs import LogFormat, configure_logging
from impala_common.process.passed_objects import split_objects_option
from impala_common.run.run_directory import RunDirectory
from impala_server.ranks.place import RankPlace
from impala_server.storage.process_ends import ProcessEnds


def main(
    run_path: str,
    descriptors: str,
    log_level: str,
    log_format: LogFormat,
    num_threads: str,
    place: str,
    *more: str,
) -> None:
    """Runs the process; `more` is the option for inherited objects, or nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    configure_logging(log_level, "learner", log_format)
    ends = ProcessEnds.from_argument(descriptors)
    # Every update allocates and frees activations. Kept buffers and huge pages leave a sixth of the
    # page faults; torch reads the variable when it is imported.
    keep_large_buffers()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    import torch

    from impala_server.learner.process import learner_main

    torch.set_num_threads(int(num_threads))
    run = RunDirectory(run_path)
    objects_fd, _ = split_objects_option(more)
    config = parse_config(sys.stdin.read())
    failpoints.arm_from_environment(config.transport.host)
    # For networks that draw random numbers in updates; a checkpoint restores the stream.
    torch.manual_seed(config.job.seed)
    learner_main(config, run, ends, objects_fd, RankPlace.from_argument(place))


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # the supervisor passes a valid format
